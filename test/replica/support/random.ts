import type {Test} from 'tap'

/** Numbers that look random and come again with the same seed. */
export class Random {
  #state: number

  constructor(readonly seed: number) {
    this.#state = seed >>> 0
  }

  /** A whole number from 0 up to and not including `limit`. */
  below(limit: number): number {
    // mulberry32
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * limit)
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0
  }

  fill(buffer: Buffer): void {
    for (let at = 0; at + 4 <= buffer.length; at += 4) buffer.writeUInt32LE(this.below(0x1_0000_0000), at)
    for (let at = buffer.length & ~3; at < buffer.length; at++) buffer[at] = this.below(256)
  }
}

/** A new sequence each run, unless `usual` says which; LONGHORN_TEST_SEED repeats the one that a failed test has printed. */
export function seededRandom(t: Test, usual = Math.floor(Math.random() * 0x1_0000_0000)): Random {
  const seed = Number(process.env['LONGHORN_TEST_SEED'] ?? usual)
  t.comment(`LONGHORN_TEST_SEED=${seed}`)
  return new Random(seed)
}
