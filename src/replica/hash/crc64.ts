// CRC-64 as upstream's checksum files have it: ISO 3309 polynomial, reflected (0xD800000000000000), all ones first and last.
// A CRC is two halves of 32 bits; BigInt would be twenty times slower.

const POLY_HIGH = 0xd8000000
const HIGH = new Int32Array(256 * 8)
const LOW = new Int32Array(256 * 8)

for (let byte = 0; byte < 256; byte++) {
  let high = 0
  let low = byte
  for (let bit = 0; bit < 8; bit++) {
    const odd = low & 1
    low = ((low >>> 1) | (high << 31)) >>> 0
    high = high >>> 1
    if (odd === 1) high = (high ^ POLY_HIGH) >>> 0
  }
  HIGH[byte] = high
  LOW[byte] = low
}
// Table n: the effect of a byte that n more bytes follow.
for (let at = 256; at < HIGH.length; at++) {
  const high = HIGH[at - 256]!
  const low = LOW[at - 256]!
  const index = low & 0xff
  HIGH[at] = (high >>> 8) ^ HIGH[index]!
  LOW[at] = ((low >>> 8) | (high << 24)) ^ LOW[index]!
}

/** The CRC of bytes that come piece by piece. */
export class Crc64 {
  #high = 0xffffffff
  #low = 0xffffffff

  update(bytes: Buffer): void {
    let high = this.#high | 0
    let low = this.#low | 0
    let at = 0
    for (const end = bytes.length - (bytes.length % 8); at < end; at += 8) {
      // Plain bytes and 32-bit integers throughout: 800 MB/s, against 70 with readInt32LE() and unsigned tables.
      low ^= bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
      high ^= bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24)
      const a = 1792 + (low & 0xff)
      const b = 1536 + ((low >>> 8) & 0xff)
      const c = 1280 + ((low >>> 16) & 0xff)
      const d = 1024 + (low >>> 24)
      const e = 768 + (high & 0xff)
      const f = 512 + ((high >>> 8) & 0xff)
      const g = 256 + ((high >>> 16) & 0xff)
      const h = high >>> 24
      high = HIGH[a]! ^ HIGH[b]! ^ HIGH[c]! ^ HIGH[d]! ^ HIGH[e]! ^ HIGH[f]! ^ HIGH[g]! ^ HIGH[h]!
      low = LOW[a]! ^ LOW[b]! ^ LOW[c]! ^ LOW[d]! ^ LOW[e]! ^ LOW[f]! ^ LOW[g]! ^ LOW[h]!
    }
    for (; at < bytes.length; at++) {
      const index = (low ^ bytes[at]!) & 0xff
      low = ((low >>> 8) | (high << 24)) ^ LOW[index]!
      high = (high >>> 8) ^ HIGH[index]!
    }
    this.#high = high >>> 0
    this.#low = low >>> 0
  }

  /** As `update` with `count` bytes of zero, in a time that grows with the number of digits of `count`. */
  updateZeros(count: number): void {
    if (count === 0) return
    let state: Halves = [this.#high, this.#low]
    // x^8 to the power of 1, 2, 4, …
    let power = X_TO_8
    for (let left = count; left > 0; left = Math.floor(left / 2)) {
      if (left % 2 === 1) state = multiply(state, power)
      power = multiply(power, power)
    }
    this.#high = state[0]
    this.#low = state[1]
  }

  /** 16 lower-case hexadecimal digits. */
  digest(): string {
    return [~this.#high, ~this.#low].map(half => (half >>> 0).toString(16).padStart(8, '0')).join('')
  }
}

type Halves = readonly [high: number, low: number]

/** Bit 63 is x^0, as in every reflected CRC. */
const X_TO_8: Halves = [0x00800000, 0]

/** The product of two polynomials modulo that of the CRC. */
function multiply([aHigh, aLow]: Halves, [bHigh, bLow]: Halves): Halves {
  let high = 0
  let low = 0
  for (let bit = 0; bit < 64; bit++) {
    if (((bit < 32 ? aHigh >>> (31 - bit) : aLow >>> (63 - bit)) & 1) === 1) {
      high ^= bHigh
      low ^= bLow
    }
    const odd = bLow & 1
    bLow = ((bLow >>> 1) | (bHigh << 31)) >>> 0
    bHigh = bHigh >>> 1
    if (odd === 1) bHigh ^= POLY_HIGH
  }
  return [high >>> 0, low >>> 0]
}
