import {LonghornError} from '../lib/errors.js'

/**
 * Reading and writing the small JSON files of a replica the way Go's encoding/json does, because upstream reads what
 * we write and we read what it wrote: keys in any case and order, unknown keys ignored, missing keys mean zero values,
 * and `<`, `>`, `&` escaped when writing.
 */
export class MetaFields {
  readonly #fields = new Map<string, unknown>()

  /** Reads the JSON object in `text`. Throws CORRUPT, naming `path`, when it is anything else. */
  constructor(
    text: string,
    readonly path: string,
  ) {
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (error) {
      const what = text.trim() === '' ? 'is empty' : 'is not complete JSON, it may have been cut off by a power failure'
      throw this.#corrupt(what, error)
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw this.#corrupt('does not hold a JSON object')
    for (const [key, field] of Object.entries(value)) this.#fields.set(key.toLowerCase(), field)
  }

  has(key: string): boolean {
    return this.#get(key) !== undefined
  }

  text(key: string): string {
    const value = this.#get(key) ?? ''
    if (typeof value !== 'string') throw this.wrong(key, value, 'text')
    return value
  }

  flag(key: string): boolean {
    const value = this.#get(key) ?? false
    if (typeof value !== 'boolean') throw this.wrong(key, value, 'true or false')
    return value
  }

  /** A whole number that is exact in a JS number and not negative; 0 when missing. */
  count(key: string): number {
    const value = this.#get(key) ?? 0
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw this.wrong(key, value, 'a whole number')
    return value
  }

  /** A map of texts; null when missing or null, which Go tells from an empty map. */
  texts(key: string): Readonly<Record<string, string>> | null {
    const value = this.#get(key) ?? null
    if (value === null) return null
    if (typeof value !== 'object' || Array.isArray(value)) throw this.wrong(key, value, 'an object')
    const entries = Object.entries(value)
    const notText = entries.find(([, text]) => typeof text !== 'string')
    if (notText !== undefined) throw this.wrong(`${key}.${notText[0]}`, notText[1], 'text')
    return Object.fromEntries(entries)
  }

  /** The error for a field whose value makes no sense. */
  wrong(key: string, value: unknown, expected: string): LonghornError {
    return this.#corrupt(`has ${key} = ${JSON.stringify(value)} where ${expected} is expected`)
  }

  #get(key: string): unknown {
    return this.#fields.get(key.toLowerCase()) ?? undefined
  }

  #corrupt(what: string, cause?: unknown): LonghornError {
    const advice = 'Rebuild this replica from another one, or put the file back from a copy.'
    return new LonghornError('CORRUPT', `${this.path} ${what}. ${advice}`, {path: this.path}, {cause})
  }
}

/** One line of JSON as Go's encoder writes it. Keys appear in the order given. */
export function goJsonLine(value: object): string {
  return `${JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, escapeAsGoDoes)}\n`
}

/** Labels in the order in which Go writes a map: sorted by the bytes of the key. */
export function sortedLabels(labels: Readonly<Record<string, string>> | null): Record<string, string> | null {
  if (labels === null) return null
  const entries = Object.entries(labels)
  return Object.fromEntries(entries.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
}

function escapeAsGoDoes(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
