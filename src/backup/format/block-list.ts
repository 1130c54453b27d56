import type {BackupBlock} from './backup-record.js'
import type {JsonFields} from './json-fields.js'
import {isSum} from './store-layout.js'

/** The blocks of a record that is being read, which come in parts. Throws CORRUPT. */
export class BlockList {
  readonly #blocks: BackupBlock[] = []
  #sorted = true

  constructor(
    readonly fields: JsonFields,
    readonly blockBytes: number,
  ) {}

  /** Takes what JSON.parse() made of entries of the list. */
  add(entries: unknown): void {
    if (!Array.isArray(entries)) throw this.fields.wrong('Blocks', 'a list')
    for (const entry of entries as unknown[]) {
      const {Offset: offset, BlockChecksum: sum} = Object(entry) as {Offset?: unknown; BlockChecksum?: unknown}
      if (typeof offset !== 'number' || !Number.isSafeInteger(offset) || offset < 0 || offset % this.blockBytes !== 0) {
        throw this.fields.wrong('Blocks', `a list of blocks at multiples of ${this.blockBytes}`)
      }
      if (typeof sum !== 'string' || !isSum(sum)) throw this.fields.wrong('Blocks', 'a list of blocks with their checksums')
      this.#sorted &&= (this.#blocks.at(-1)?.offset ?? -1) < offset
      this.#blocks.push({offset, sum})
    }
  }

  /** All of them, sorted by offset. */
  end(): BackupBlock[] {
    if (this.#sorted) return this.#blocks
    const blocks = this.#blocks.sort((a, b) => a.offset - b.offset)
    if (blocks.some(({offset}, index) => index > 0 && blocks[index - 1]!.offset === offset)) throw this.fields.wrong('Blocks', 'a list in which each offset is once')
    return blocks
  }
}
