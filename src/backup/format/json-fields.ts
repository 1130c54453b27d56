import {LonghornError} from '../../lib/errors.js'

/**
 * Reads the fields of a record as upstream's JSON reader does: keys without regard to case, unknown ones ignored, missing ones empty.
 * Everything of the wrong type is CORRUPT, with `where` (the key of the object) and the field in the message.
 */
export class JsonFields {
  readonly #fields: Map<string, unknown>

  constructor(
    text: string,
    readonly where: string,
  ) {
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (error) {
      throw new LonghornError('CORRUPT', `${where} is not JSON`, {key: where}, {cause: error})
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new LonghornError('CORRUPT', `${where} is not a JSON object`, {key: where})
    this.#fields = new Map(Object.entries(value).map(([key, field]) => [key.toLowerCase(), field]))
  }

  value(name: string): unknown {
    return this.#fields.get(name.toLowerCase()) ?? undefined
  }

  text(name: string): string {
    const value = this.value(name) ?? ''
    if (typeof value !== 'string') throw this.wrong(name, 'a text')
    return value
  }

  /** A text within the text, as upstream quotes some: `"\"lz4\""`. */
  quoted(name: string): string {
    const text = this.text(name)
    if (text === '') return ''
    try {
      const inner: unknown = JSON.parse(text)
      if (typeof inner === 'string') return inner
    } catch {
      // Not quoted within: reported below.
    }
    throw this.wrong(name, 'a text that is quoted twice')
  }

  /** Decimal digits as text. */
  integer(name: string): number {
    const text = this.text(name)
    const value = Number(text)
    if (text !== '' && (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(value))) throw this.wrong(name, 'a whole number as text')
    return value
  }

  boolean(name: string): boolean {
    const value = this.value(name) ?? false
    if (typeof value !== 'boolean') throw this.wrong(name, 'true or false')
    return value
  }

  /** Texts by name, null for none. */
  texts(name: string): Readonly<Record<string, string>> | null {
    const value = this.value(name)
    if (value === undefined) return null
    if (typeof value !== 'object' || value === null || Object.values(value).some(text => typeof text !== 'string')) throw this.wrong(name, 'texts by name')
    return value as Record<string, string>
  }

  wrong(name: string, expected: string): LonghornError {
    return new LonghornError('CORRUPT', `${this.where}: ${name} is not ${expected}`, {key: this.where, field: name})
  }
}

/** A moment as upstream writes it: RFC 3339, UTC, whole seconds. */
export function recordTime(moment: Date): string {
  return moment.toISOString().replace(/\.\d+Z$/, 'Z')
}
