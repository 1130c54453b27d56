// The text format of RFC 7143 section 6.1: `key=value`, each ended by a zero byte, in UTF-8.
import {LonghornError} from '../../../../lib/errors.js'

const MAX_KEY_BYTES = 63
/** Of simple values; those of CHAP are binary and may be longer. */
const MAX_VALUE_BYTES = 255
/** The 1024 bytes of a CHAP value in hexadecimal, with its prefix. */
const MAX_BINARY_CHARS = 2 + 2 * 1024
/** An initiator must be able to send 8192 bytes in a negotiation, and has no reason to send much more. */
export const MAX_TEXT_BYTES = 64 * 1024
/** There are some forty keys. */
const MAX_PAIRS = 256

/** Letters, digits and a few signs. RFC 7143 wants a capital letter first, but RFC 7144 has named a key iSCSIProtocolLevel. */
const KEY = /^[A-Za-z][A-Za-z\d.+@_#-]*$/
const BINARY_KEYS = new Set(['CHAP_C', 'CHAP_R'])

export interface Pair {
  readonly key: string
  readonly value: string
}

/** The pairs in `text`, in order. Throws PROTOCOL. Nothing of a value gets into an error, as it may be a secret's. */
export function parsePairs(text: Buffer): Pair[] {
  const pairs: Pair[] = []
  let start = 0
  while (start < text.length) {
    let end = text.indexOf(0, start)
    // The last pair need not be ended when the text is.
    if (end < 0) end = text.length
    // Padding that was counted as data.
    if (end > start) pairs.push(parsePair(text.toString('utf8', start, end)))
    if (pairs.length > MAX_PAIRS) throw new LonghornError('PROTOCOL', `more than ${MAX_PAIRS} keys in one text`)
    start = end + 1
  }
  return pairs
}

function parsePair(text: string): Pair {
  const equals = text.indexOf('=')
  if (equals < 0) throw new LonghornError('PROTOCOL', 'a text without "="')
  const key = text.slice(0, equals)
  if (key.length > MAX_KEY_BYTES || !KEY.test(key)) throw new LonghornError('PROTOCOL', 'a text with a key that is none')
  const value = text.slice(equals + 1)
  const limit = BINARY_KEYS.has(key) ? MAX_BINARY_CHARS : MAX_VALUE_BYTES
  if (Buffer.byteLength(value) > limit) throw new LonghornError('PROTOCOL', `the value of ${key} is longer than ${limit} bytes`)
  return {key, value}
}

export function formatPairs(pairs: readonly Pair[]): Buffer {
  return Buffer.from(pairs.map(({key, value}) => `${key}=${value}\0`).join(''))
}

/** Whether this can be the name of an initiator or a target: RFC 7143 section 4.2.7 has three forms. */
export function isNodeName(name: string): boolean {
  return /^(?:iqn|eui|naa)\..+$/i.test(name)
}

const NUMBER = /^(?:0[xX][\da-fA-F]{1,8}|\d{1,10})$/

/** The value of a number in decimal or `0x…`; undefined when it is none. */
export function parseNumber(value: string): number | undefined {
  return NUMBER.test(value) ? Number(value) : undefined
}

/** Text that arrives in several PDUs, or has to be sent in several. */
export class TextAssembly {
  #parts: Buffer[] = []
  #bytes = 0

  /** Adds what came with one PDU; it is copied. Throws PROTOCOL when it becomes too much. */
  add(part: Buffer): void {
    this.#bytes += part.length
    if (this.#bytes > MAX_TEXT_BYTES) throw new LonghornError('PROTOCOL', `a text of more than ${MAX_TEXT_BYTES} bytes`)
    this.#parts.push(Buffer.from(part))
  }

  /** Everything that was added, which is then forgotten. */
  take(): Buffer {
    const text = Buffer.concat(this.#parts)
    this.clear()
    return text
  }

  get isEmpty(): boolean {
    return this.#bytes === 0
  }

  clear(): void {
    this.#parts = []
    this.#bytes = 0
  }

  /** At most `most` bytes of what was added; the rest stays. A pair may be cut, as the format allows. */
  next(most: number): Buffer {
    const all = this.take()
    if (all.length > most) {
      this.#parts.push(all.subarray(most))
      this.#bytes = all.length - most
    }
    return all.subarray(0, most)
  }
}
