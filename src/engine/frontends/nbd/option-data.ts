import {LonghornError} from '../../../lib/errors.js'
import {MAX_STRING_BYTES} from './protocol.js'

/** The data of INFO and GO. */
export interface InfoRequest {
  readonly exportName: string
  /** Numbers of the pieces of information asked for; may hold some that nobody knows. */
  readonly wanted: ReadonlySet<number>
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaContextRequest {
  readonly exportName: string
  readonly queries: readonly string[]
}

/** The data of EXPORT_NAME: nothing but a name. Throws PROTOCOL when it is not a string by the protocol's rules. */
export function parseName(data: Buffer): string {
  return new OptionData(data).string(data.length)
}

/** 0 u32 length of name · name · u16 count · count times u16. Throws PROTOCOL. */
export function parseInfoRequest(data: Buffer): InfoRequest {
  const from = new OptionData(data)
  const exportName = from.string(from.u32())
  const wanted = new Set<number>()
  for (let left = from.u16(); left > 0; left--) wanted.add(from.u16())
  from.end()
  return {exportName, wanted}
}

/** 0 u32 length of name · name · u32 count · count times (u32 length · query). Throws PROTOCOL. */
export function parseMetaContextRequest(data: Buffer): MetaContextRequest {
  const from = new OptionData(data)
  const exportName = from.string(from.u32())
  const queries: string[] = []
  // The count needs no limit of its own: each query takes 4 bytes at least, and the data is bounded.
  for (let left = from.u32(); left > 0; left--) queries.push(from.string(from.u32()))
  from.end()
  return {exportName, queries}
}

/** Reads the data of one option from front to back; everything that leaves its bounds is refused. */
class OptionData {
  #at = 0

  constructor(readonly data: Buffer) {}

  u16(): number {
    return this.data.readUInt16BE(this.#take(2))
  }

  u32(): number {
    return this.data.readUInt32BE(this.#take(4))
  }

  string(length: number): string {
    if (length > MAX_STRING_BYTES) throw invalid(`a string of ${length} bytes, ${MAX_STRING_BYTES} are allowed`)
    const at = this.#take(length)
    const text = this.data.toString('utf8', at, at + length)
    if (text.includes('\0')) throw invalid('a string with a zero byte')
    return text
  }

  end(): void {
    if (this.#at < this.data.length) throw invalid(`${this.data.length - this.#at} bytes more than it describes`)
  }

  #take(length: number): number {
    const at = this.#at
    if (length > this.data.length - at) throw invalid('shorter than it says')
    this.#at += length
    return at
  }
}

function invalid(what: string): LonghornError {
  return new LonghornError('PROTOCOL', `malformed option data: ${what}`)
}
