import {constants} from 'node:fs'
import {open, type FileHandle} from 'node:fs/promises'
import {join} from 'node:path'
import {asError, LonghornError} from '../../lib/errors.js'
import {punchHole} from '../../lib/sys/fallocate.js'
import {scannerFor, type ExtentScanner} from '../../lib/sys/file-extents.js'
import {overlaps, without, type Range} from '../purge/copy-data.js'
import type {RebuildPace} from './rebuild-pace.js'
import {blocksIn, digestRegion, REGION_BYTES} from './region-digest.js'
import type {SourceConnection} from './source-connection.js'
import type {Sources} from './sources.js'

/** How many regions are worked on at the same time. */
const AT_ONCE = 12
/** How much of a layer is asked about in one go. */
const WINDOW_BYTES = 64 * 1024 * 1024
/** Data with gaps up to this is read in one piece. */
const GAP_BYTES = 64 * 1024
/** What differs in a region is looked for in parts of this size. */
const PART_BYTES = 32 * 1024
/** A region whose copy is not what the source says is fetched this often. */
const ATTEMPTS = 3

export interface LayerSyncOptions {
  readonly directory: string
  readonly file: string
  readonly lengthBytes: number
  readonly sources: Sources
  /** The one that the sources were given. */
  readonly digestKey: Buffer
  readonly pace: RebuildPace
  /** False for a region that is known to be the same: then it is not even compared. By its number. */
  readonly wanted: (region: number) => boolean
  /** Called with a region when it is done, unless nothing is wanted for a long way around it; the bytes that a source has in it, and those that came over the network. */
  readonly done: (region: number, bytes: number, copied: number) => void
}

/**
 * Makes one layer what it is at the sources: region by region it is compared by digest, what differs is copied, and what was copied is
 * read again and compared. Durable when this resolves; begun again after an interruption it goes on with what is there.
 * CORRUPT when a region does not become the same, NO_SPACE, IO, the reasons of the sources.
 */
export async function syncLayer(options: LayerSyncOptions): Promise<void> {
  await using file = await open(join(options.directory, options.file), constants.O_RDWR | constants.O_CREAT, 0o644)
  const {size} = await file.stat()
  if (size !== options.lengthBytes) await file.truncate(options.lengthBytes)
  await new LayerSync(options, file, scannerFor(file.fd)).run()
  await file.datasync()
}

class LayerSync {
  /** Not in use; there are at most as many as regions at once. */
  readonly #buffers: Buffer[] = []
  #writingBack: Promise<unknown> | undefined
  #failure: Error | undefined

  constructor(
    readonly options: LayerSyncOptions,
    readonly file: FileHandle,
    readonly scanner: ExtentScanner,
  ) {}

  async run(): Promise<void> {
    const {lengthBytes} = this.options
    for (let offset = 0; offset < lengthBytes; offset += WINDOW_BYTES) {
      const window = {offset, length: Math.min(WINDOW_BYTES, lengthBytes - offset)}
      if (!this.#isWanted(window)) continue
      await this.#window(window)
      this.#writeBack()
    }
    await this.#writingBack
    if (this.#failure !== undefined) throw this.#failure
  }

  #isWanted({offset, length}: Range): boolean {
    const last = Math.ceil((offset + length) / REGION_BYTES)
    for (let region = offset / REGION_BYTES; region < last; region++) if (this.options.wanted(region)) return true
    return false
  }

  /** Has the disk begin with what was copied, so that little is left to sync at the end. The kernel reports an error once: it is kept. */
  #writeBack(): void {
    this.#writingBack ??= this.file
      .datasync()
      .catch((error: unknown) => (this.#failure ??= asError(error)))
      .finally(() => (this.#writingBack = undefined))
  }

  async #window(window: Range): Promise<void> {
    const {sources} = this.options
    const theirs = await sources.askEach(source => dataAt(source, window))
    const end = window.offset + window.length
    let next = window.offset
    const worker = async (): Promise<void> => {
      while (next < end) {
        const region = {offset: next, length: Math.min(REGION_BYTES, end - next)}
        next += region.length
        await this.#region(region, overlaps(theirs[sources.indexFor(region.offset / REGION_BYTES)]!, [region]))
      }
    }
    const results = await Promise.allSettled(Array.from({length: AT_ONCE}, worker))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  async #region(region: Range, theirs: readonly Range[]): Promise<void> {
    const bytes = bytesIn(theirs)
    const number = region.offset / REGION_BYTES
    let copied = 0
    if (this.options.wanted(number)) {
      await this.options.pace.run(bytes, async () => {
        const ours = this.#blocks(region)
        if (theirs.length === 0) await this.#punch(ours)
        else copied = await this.options.sources.askFor(number, source => this.#make(source, region, ours))
      })
    }
    this.options.done(number, bytes, copied)
  }

  /** Makes a region what it is at a source. Resolves to the bytes copied. */
  async #make(source: SourceConnection, region: Range, ours: readonly Range[]): Promise<number> {
    const wanted = await source.digest(region.offset, region.length)
    if (ours.length > 0 && wanted.equals(await this.#digest(ours, region.offset))) return 0
    const theirs = await dataAt(source, region)
    let copied = 0
    for (let attempt = 1; ; attempt++) {
      const parts = attempt === 1 && ours.length > 0 ? await this.#differing(source, region) : [region]
      copied += await this.#copy(source, region, overlaps(theirs, parts))
      if (bytesIn(theirs) < region.length) await this.#punch(without(this.#blocks(region), theirs))
      if (wanted.equals(await this.#digest(this.#blocks(region), region.offset))) return copied
      if (attempt === ATTEMPTS) {
        throw new LonghornError('CORRUPT', `${this.options.file}: ${region.length} bytes at ${region.offset} are not what ${source.peer} has, after ${ATTEMPTS} attempts`)
      }
    }
  }

  /** The parts of a region that are not what the source has: of what was written in small pieces little has to be copied. */
  async #differing(source: SourceConnection, region: Range): Promise<Range[]> {
    const end = region.offset + region.length
    const parts = Array.from({length: Math.ceil(region.length / PART_BYTES)}, (_, index) => {
      const offset = region.offset + index * PART_BYTES
      return {offset, length: Math.min(PART_BYTES, end - offset)}
    })
    const same = await Promise.all(
      parts.map(async part => {
        const [theirs, ours] = await Promise.all([source.digest(part.offset, part.length), this.#digest(this.#blocks(part), part.offset)])
        return theirs.equals(ours)
      }),
    )
    return parts.filter((_, index) => !same[index])
  }

  async #copy(source: SourceConnection, region: Range, theirs: readonly Range[]): Promise<number> {
    const content = this.#buffers.pop() ?? Buffer.allocUnsafeSlow(REGION_BYTES)
    try {
      let copied = 0
      for (const span of spans(theirs)) {
        await source.read(content, span.offset - region.offset, span.length, span.offset)
        copied += span.length
      }
      for (const {offset, length} of theirs) await writeFully(this.file, content, offset - region.offset, length, offset)
      return copied
    } finally {
      this.#buffers.push(content)
    }
  }

  #digest(ranges: readonly Range[], offset: number): Promise<Buffer> {
    return digestRegion(this.file, ranges, offset, this.options.digestKey)
  }

  #blocks(region: Range): Range[] {
    return blocksIn(this.scanner, this.file.fd, region)
  }

  async #punch(ranges: readonly Range[]): Promise<void> {
    for (const {offset, length} of ranges) {
      // A hole is in whole blocks, also at the end of a file that ends inside one.
      await punchHole(this.file.fd, offset, Math.ceil(length / 4096) * 4096)
    }
  }
}

function bytesIn(ranges: readonly Range[]): number {
  return ranges.reduce((sum, {length}) => sum + length, 0)
}

/** Where a source has data in a range. */
async function dataAt(source: SourceConnection, {offset, length}: Range): Promise<Range[]> {
  const ranges: {offset: number; length: number}[] = []
  for (let at = offset; at < offset + length; ) {
    const extents = await source.extents(at, offset + length - at)
    for (const extent of extents) {
      const last = ranges.at(-1)
      if (extent.allocated && last !== undefined && last.offset + last.length === extent.offset) last.length += extent.length
      else if (extent.allocated) ranges.push({offset: extent.offset, length: extent.length})
      at = extent.offset + extent.length
    }
  }
  return ranges
}

/** Ranges with small gaps in one piece. */
function spans(ranges: readonly Range[]): Range[] {
  const result: {offset: number; length: number}[] = []
  for (const {offset, length} of ranges) {
    const last = result.at(-1)
    if (last !== undefined && offset - (last.offset + last.length) <= GAP_BYTES) last.length = offset + length - last.offset
    else result.push({offset, length})
  }
  return result
}

async function writeFully(file: FileHandle, from: Buffer, start: number, length: number, position: number): Promise<void> {
  for (let done = 0; done < length; ) done += (await file.write(from, start + done, length - done, position + done)).bytesWritten
}
