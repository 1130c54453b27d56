import {createHash} from 'node:crypto'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {BLOCK_BYTES, BLOCK_FLAG, BLOCKS_PER_REGION, DIGEST_BYTES, REGION_BYTES, runsOf, type BlockRun} from '../../protocol/scrub-units.js'
import {ioFailure} from '../io-failure.js'
import type {Pace} from '../purge/copy-data.js'
import {readFromDisk} from '../read-back.js'
import {readPadded, type LayerFiles} from './layer-files.js'

/** The most that is read at once: hashing it takes the event loop less than a millisecond. */
export const SLICE_BYTES = 256 * 1024

export interface BlockDigests {
  readonly flags: Buffer
  readonly digests: Buffer
}

/** Is told a block and its bytes, which are good until it returns; or, without them, why it cannot be read. */
type BlockVisitor = (block: number, bytes: Buffer | undefined, failure: unknown) => void

/** What is read in the blocks of one region through a frozen layer and those below it. Blocks are numbers within the region. */
export class RegionBlocks {
  private constructor(
    readonly files: LayerFiles,
    readonly layer: string,
    readonly region: number,
    /** The layer that each block is read from; undefined where all of them have holes. */
    readonly holders: readonly (string | undefined)[],
  ) {}

  /** Throws Node's errors. */
  static async find(files: LayerFiles, layer: string, region: number): Promise<RegionBlocks> {
    const holders = new Array<string | undefined>(BLOCKS_PER_REGION).fill(undefined)
    let missing = BLOCKS_PER_REGION
    for (let file = layer; file !== '' && missing > 0; file = files.get(file).meta.parent) {
      const held = await files.held(file, region)
      for (const [index, one] of held.entries()) {
        if (one !== 1 || holders[index] !== undefined) continue
        holders[index] = file
        missing--
      }
    }
    return new RegionBlocks(files, layer, region, holders)
  }

  /** Where a block lies in its file, in bytes. */
  offsetOf(block: number): number {
    return this.region * REGION_BYTES + block * BLOCK_BYTES
  }

  /** The block that lies there. */
  blockAt(offset: number): number {
    return (offset - this.region * REGION_BYTES) / BLOCK_BYTES
  }

  /**
   * Flags and digests of these blocks, ascending, in their order. A block that cannot be read and lies in a removed layer below counts
   * as held: the others may have merged that layer, so that only this one is compared. Throws IO, the signal's reason.
   */
  async digests(blocks: readonly number[], pace: Pace): Promise<BlockDigests> {
    const flags = Buffer.alloc(blocks.length)
    const digests = Buffer.alloc(blocks.length * DIGEST_BYTES)
    let index = 0
    await this.read(blocks, pace, (block, bytes) => {
      const holder = this.holders[block]
      if (holder === this.layer) flags[index] = BLOCK_FLAG.HELD
      if (bytes !== undefined) {
        sha256(bytes).copy(digests, index * DIGEST_BYTES)
      } else {
        flags[index]! |= BLOCK_FLAG.UNREADABLE
        if (holder !== undefined && this.files.get(holder).meta.removed) flags[index]! |= BLOCK_FLAG.HELD
      }
      index++
    })
    return {flags, digests}
  }

  /** Reads these blocks, ascending, in runs as long as they lie side by side in one file. Throws IO for what is not a bad block, and the signal's reason. */
  async read(blocks: readonly number[], pace: Pace, visit: BlockVisitor): Promise<void> {
    const slice = Buffer.allocUnsafe(SLICE_BYTES)
    const runs = runsOf(blocks, ({first, count}, block) => this.holders[first] === this.holders[block] && count < SLICE_BYTES / BLOCK_BYTES)
    for (const run of runs) await pace.run(() => this.#readRun(run, slice.subarray(0, run.count * BLOCK_BYTES), visit))
  }

  async #readRun({first, count}: BlockRun, slice: Buffer, visit: BlockVisitor): Promise<void> {
    const holder = this.holders[first]
    try {
      if (holder === undefined) slice.fill(0)
      else await readPadded(await this.files.file(holder), slice, this.offsetOf(first))
    } catch (error) {
      if (errnoOf(error) !== 'EIO') throw ioFailure(`reading ${holder}`, error)
      for (let block = first; block < first + count; block++) await this.#readAlone(block, holder!, slice.subarray(0, BLOCK_BYTES), visit)
      return
    }
    for (let index = 0; index < count; index++) visit(first + index, slice.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES), undefined)
  }

  async #readAlone(block: number, holder: string, into: Buffer, visit: BlockVisitor): Promise<void> {
    try {
      await readBlock(this.files, holder, into, this.offsetOf(block))
    } catch (error) {
      if (errnoOf(error) !== 'EIO') throw ioFailure(`reading ${holder}`, error)
      visit(block, undefined, error)
      return
    }
    visit(block, into, undefined)
  }
}

/** The region and the blocks in it that a range of a layer covers. Throws USAGE when they are not whole ones of one region. */
export function blocksAt(offset: number, length: number): {readonly region: number; readonly blocks: readonly number[]} {
  const region = Math.floor(offset / REGION_BYTES)
  if (offset % BLOCK_BYTES !== 0 || length % BLOCK_BYTES !== 0 || length <= 0 || offset + length > (region + 1) * REGION_BYTES) {
    throw new LonghornError('USAGE', `${length} bytes at ${offset} are not whole blocks of one region of ${REGION_BYTES} bytes`)
  }
  const first = (offset - region * REGION_BYTES) / BLOCK_BYTES
  return {region, blocks: Array.from({length: length / BLOCK_BYTES}, (_, index) => first + index)}
}

export function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest()
}

/** A block beside a bad one counts as good. */
async function readBlock(files: LayerFiles, layer: string, block: Buffer, offset: number): Promise<void> {
  try {
    await readPadded(await files.file(layer), block, offset)
  } catch (error) {
    const bytes = Math.min(block.length, files.get(layer).sizeBytes - offset)
    if (errnoOf(error) !== 'EIO' || bytes <= 0) throw error
    const direct = await readFromDisk(join(files.volume.directory.path, layer), bytes, offset)
    block.fill(0).set(direct)
  }
}
