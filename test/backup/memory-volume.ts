import type {BaseSnapshot, BlockSource, Range} from '../../src/backup/block-source.js'

const GRAIN = 4096

interface Layer {
  readonly name: string
  readonly created: string
  readonly image: Buffer
  /** Grains that were written since the layer before. */
  readonly written: ReadonlySet<number>
}

/** A volume in memory with a line of snapshots. */
export class MemoryVolume {
  readonly image: Buffer
  readonly #layers: Layer[] = []
  #written = new Set<number>()

  constructor(sizeBytes: number) {
    this.image = Buffer.alloc(sizeBytes)
  }

  write(offset: number, data: Buffer): void {
    data.copy(this.image, offset)
    for (let at = Math.floor(offset / GRAIN); at * GRAIN < offset + data.length; at++) this.#written.add(at)
  }

  snapshot(name: string, created = new Date(0).toISOString()): MemorySource {
    this.#layers.push({name, created, image: Buffer.from(this.image), written: this.#written})
    this.#written = new Set()
    return new MemorySource([...this.#layers])
  }

  /** Forgets a snapshot: what was written in it belongs to the next one. */
  purge(name: string): void {
    const index = this.#layers.findIndex(layer => layer.name === name)
    const [layer] = this.#layers.splice(index, 1)
    const next = this.#layers[index]
    if (next === undefined) this.#written = new Set([...this.#written, ...layer!.written])
    else this.#layers[index] = {...next, written: new Set([...next.written, ...layer!.written])}
  }
}

/** The volume at one of its snapshots. */
export class MemorySource implements BlockSource {
  /** Bytes that were read. */
  bytesRead = 0
  beforeRead: (offset: number) => void | Promise<void> = () => undefined

  constructor(readonly layers: readonly Layer[]) {}

  get image(): Buffer {
    return this.layers.at(-1)!.image
  }

  get sizeBytes(): number {
    return this.image.length
  }

  async read(target: Buffer, length: number, offset: number): Promise<void> {
    await this.beforeRead(offset)
    this.image.copy(target, 0, offset, offset + length)
    this.bytesRead += length
  }

  allocated(): Iterable<Range> {
    return ranges(this.layers)
  }

  changedSince({name, backedUpAt}: BaseSnapshot): Iterable<Range> | undefined {
    const base = this.layers.findIndex(layer => layer.name === name && layer.created <= backedUpAt)
    return base === -1 ? undefined : ranges(this.layers.slice(base + 1))
  }
}

function ranges(layers: readonly Layer[]): Range[] {
  const grains = new Set(layers.flatMap(layer => [...layer.written]))
  return [...grains].sort((a, b) => a - b).map(grain => ({offset: grain * GRAIN, length: GRAIN}))
}
