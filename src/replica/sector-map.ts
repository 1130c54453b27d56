/** The unit in which a layer hides the layers below it, in bytes. Also what upstream calls a sector. */
export const BLOCK_BYTES = 4096

/** A layer number: 1 is the oldest layer, the highest is the head, 0 means that no layer holds the block. */
export const NO_LAYER = 0

/** Layer numbers are stored in 16 bits. */
export const MAX_LAYERS = 0xffff

/** The unit of the first level, in blocks. */
export const SEGMENT_BLOCKS = 512

// Second-level tables live in pages of 1 MiB, so that growing never copies what is there.
const TABLES_PER_PAGE = 1024

/**
 * Which layer holds each block of a volume.
 *
 *     entries    one per segment of 2 MiB:  a layer number when one layer holds all of it,
 *        |                                  else 0x10000 + the number of a table
 *        +--->   tables of 512 layer numbers, one per block
 *
 * A volume without mixed segments costs 2 MiB per TiB; each mixed segment another 1 KiB. A table whose blocks come to
 * belong to one layer again is given back at once: it counts how many of its entries hold the layer set last.
 */
export class SectorMap {
  #blocks: number
  #entries: Uint32Array
  readonly #pages: Uint16Array[] = []
  /** Per table: the layer that was set last, and how many of the 512 entries hold it. */
  #tableLayer = new Uint16Array(0)
  #tableCount = new Uint16Array(0)
  readonly #freeTables: number[] = []
  #tables = 0

  /** A map in which no layer holds anything. `sizeBytes` is the size of the volume. */
  constructor(sizeBytes: number) {
    this.#blocks = Math.ceil(sizeBytes / BLOCK_BYTES)
    this.#entries = new Uint32Array(Math.ceil(this.#blocks / SEGMENT_BLOCKS))
  }

  get blocks(): number {
    return this.#blocks
  }

  /** Makes room for a larger volume. No layer holds anything of what is new. */
  grow(sizeBytes: number): void {
    const before = this.#blocks
    const room = this.#entries.length * SEGMENT_BLOCKS
    this.#blocks = Math.ceil(sizeBytes / BLOCK_BYTES)
    const entries = new Uint32Array(Math.ceil(this.#blocks / SEGMENT_BLOCKS))
    entries.set(this.#entries)
    this.#entries = entries
    // The last block's layer was that of everything behind it.
    this.set(before, Math.min(room, this.#blocks) - before, NO_LAYER)
  }

  get segments(): number {
    return this.#entries.length
  }

  /** How many segments are held by more than one layer. */
  get mixedSegments(): number {
    return this.#tables - this.#freeTables.length
  }

  /** The layer that holds this block. */
  lookup(block: number): number {
    const segment = (block / SEGMENT_BLOCKS) | 0
    const entry = this.#entries[segment] as number
    if (entry <= MAX_LAYERS) return entry
    return this.#read(entry - MAX_LAYERS - 1, block - segment * SEGMENT_BLOCKS)
  }

  /** How many blocks from `block` on, at most `limit`, belong to the same layer as `block`. At least 1. */
  runLength(block: number, limit: number): number {
    const layer = this.lookup(block)
    let run = 1
    while (run < limit) {
      const at = block + run
      const segment = (at / SEGMENT_BLOCKS) | 0
      const first = at - segment * SEGMENT_BLOCKS
      const entry = this.#entries[segment] as number
      if (entry <= MAX_LAYERS) {
        if (entry !== layer) return run
        run += SEGMENT_BLOCKS - first
      } else {
        const table = entry - MAX_LAYERS - 1
        const page = this.#page(table)
        const base = (table % TABLES_PER_PAGE) * SEGMENT_BLOCKS
        const stop = Math.min(SEGMENT_BLOCKS, first + limit - run)
        for (let index = first; index < stop; index++, run++) {
          if (page[base + index] !== layer) return run
        }
      }
    }
    return limit
  }

  /** True when no layer holds any block of this segment. */
  isEmptySegment(segment: number): boolean {
    return this.#entries[segment] === NO_LAYER
  }

  /** Makes `layer` the holder of `count` blocks from `first` on. */
  set(first: number, count: number, layer: number): void {
    if (count <= 0) return
    // By far the most frequent: a block of the head is written again.
    if (count === 1 && this.lookup(first) === layer) return
    let block = first
    // What lies beyond the last block belongs to nobody, so it goes along with the last block:
    // the last segment can then become uniform like any other.
    const end = first + count >= this.#blocks ? this.#entries.length * SEGMENT_BLOCKS : first + count
    while (block < end) {
      const segment = (block / SEGMENT_BLOCKS) | 0
      const start = block - segment * SEGMENT_BLOCKS
      const stop = Math.min(SEGMENT_BLOCKS, start + end - block)
      this.#setInSegment(segment, start, stop, layer)
      block += stop - start
    }
  }

  #setInSegment(segment: number, start: number, stop: number, layer: number): void {
    const entry = this.#entries[segment] as number
    if (entry === layer) return
    if (stop - start === SEGMENT_BLOCKS) {
      if (entry > MAX_LAYERS) this.#freeTables.push(entry - MAX_LAYERS - 1)
      this.#entries[segment] = layer
      return
    }
    let table = entry - MAX_LAYERS - 1
    if (entry <= MAX_LAYERS) {
      table = this.#newTable(entry)
      this.#entries[segment] = table + MAX_LAYERS + 1
    }
    const page = this.#page(table)
    const base = (table % TABLES_PER_PAGE) * SEGMENT_BLOCKS
    if (this.#tableLayer[table] !== layer) this.#countAgain(table, page, base, layer)
    let changed = 0
    for (let index = base + start; index < base + stop; index++) {
      if (page[index] === layer) continue
      page[index] = layer
      changed += 1
    }
    const held = (this.#tableCount[table] as number) + changed
    this.#tableCount[table] = held
    if (held < SEGMENT_BLOCKS) return
    this.#freeTables.push(table)
    this.#entries[segment] = layer
  }

  #countAgain(table: number, page: Uint16Array, base: number, layer: number): void {
    let held = 0
    for (let index = base; index < base + SEGMENT_BLOCKS; index++) {
      if (page[index] === layer) held += 1
    }
    this.#tableLayer[table] = layer
    this.#tableCount[table] = held
  }

  #newTable(layer: number): number {
    const table = this.#freeTables.pop() ?? this.#grow()
    const base = (table % TABLES_PER_PAGE) * SEGMENT_BLOCKS
    this.#page(table).fill(layer, base, base + SEGMENT_BLOCKS)
    this.#tableLayer[table] = layer
    this.#tableCount[table] = SEGMENT_BLOCKS
    return table
  }

  #grow(): number {
    const table = this.#tables
    this.#tables += 1
    if (table % TABLES_PER_PAGE === 0) this.#pages.push(new Uint16Array(TABLES_PER_PAGE * SEGMENT_BLOCKS))
    if (table === this.#tableLayer.length) {
      this.#tableLayer = enlarge(this.#tableLayer)
      this.#tableCount = enlarge(this.#tableCount)
    }
    return table
  }

  #read(table: number, index: number): number {
    return this.#page(table)[(table % TABLES_PER_PAGE) * SEGMENT_BLOCKS + index] as number
  }

  #page(table: number): Uint16Array {
    return this.#pages[(table / TABLES_PER_PAGE) | 0] as Uint16Array
  }
}

function enlarge(array: Uint16Array): Uint16Array<ArrayBuffer> {
  const larger = new Uint16Array(Math.max(TABLES_PER_PAGE, array.length * 2))
  larger.set(array)
  return larger
}
