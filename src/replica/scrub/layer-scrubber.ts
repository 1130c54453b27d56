import {createHash} from 'node:crypto'
import {open} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {BLOCK_BYTES, BLOCK_FLAG, BLOCKS_PER_REGION, DIGEST_BYTES, MOST_REGIONS, REGION_BYTES, REGION_STATE} from '../../protocol/scrub-units.js'
import {ioFailure} from '../io-failure.js'
import {isHeadName} from '../layer-names.js'
import {Pace} from '../purge/copy-data.js'
import {readFromDisk} from '../read-back.js'
import type {ReplicaVolume} from '../replica-volume.js'
import {LayerFiles, readPadded} from './layer-files.js'

/** The share of the time that reading may take: the volume is being used meanwhile. */
const SHARE = 0.5
/** Hashing it takes the event loop less than a millisecond. */
const SLICE_BYTES = 256 * 1024

export interface RegionDigests {
  /** Of the layer's file. */
  readonly sizeBytes: number
  readonly digests: Buffer
  readonly states: Buffer
}

export interface BlockDigests {
  readonly flags: Buffer
  readonly digests: Buffer
}

/** What the scrubber needs to know of its replica. */
export interface ScrubbedReplica {
  /** Throws CONFLICT when the replica is not open. */
  readonly openVolume: ReplicaVolume
  readonly isPurging: boolean
}

/** Tells an engine what the frozen layers of this replica hold, and rewrites what is wrong in them. */
export class LayerScrubber {
  readonly #replica: ScrubbedReplica
  #healing: Promise<unknown> = Promise.resolve()

  constructor(replica: ScrubbedReplica) {
    this.#replica = replica
  }

  /** Resolves when nothing is being rewritten: layers may be merged then. */
  async settled(): Promise<void> {
    await this.#healing
  }

  /** Digests of `count` regions from `first` on; what lies behind the end of the layer holds nothing. NOT_FOUND, USAGE, IO, the signal's reason. */
  async digests(layer: string, first: number, count: number, signal: AbortSignal): Promise<RegionDigests> {
    if (count > MOST_REGIONS) throw new LonghornError('USAGE', `${count} regions are more than ${MOST_REGIONS}`)
    await using files = new LayerFiles(this.#replica.openVolume)
    const {sizeBytes} = files.getFrozen(layer)
    const digests = Buffer.alloc(count * DIGEST_BYTES)
    const states = Buffer.alloc(count)
    const pace = new Pace(SHARE, signal)
    const regions = Math.ceil(sizeBytes / REGION_BYTES)
    for (let index = 0; index < count && first + index < regions; index++) {
      const held = await files.held(layer, first + index)
      if (!held.includes(1)) continue
      const digest = await regionDigest(files, layer, first + index, held, pace)
      states[index] = digest === undefined ? REGION_STATE.UNREADABLE : REGION_STATE.DATA
      digest?.copy(digests, index * DIGEST_BYTES)
    }
    return {sizeBytes, digests, states}
  }

  /** What is read through a layer and those below it, block by block. Errors as those of digests(). */
  async blocks(layer: string, region: number): Promise<BlockDigests> {
    await using files = new LayerFiles(this.#replica.openVolume)
    files.getFrozen(layer)
    const result = await blockDigests(files, layer, region, 0, BLOCKS_PER_REGION)
    const visible = await visibleFrom(files, layer, region)
    for (const [index, one] of visible.entries()) if (one === 1) result.flags[index]! |= BLOCK_FLAG.VISIBLE
    return result
  }

  /** What is read through a layer and those below it: whole blocks of one region. Errors as those of digests(). */
  async read(layer: string, offset: number, length: number): Promise<Buffer> {
    const region = checkBlocks(offset, length)
    await using files = new LayerFiles(this.#replica.openVolume)
    files.getFrozen(layer)
    const holders = await resolve(files, layer, region)
    const data = Buffer.alloc(length)
    for (let done = 0; done < length; done += BLOCK_BYTES) {
      const holder = holders[(offset + done - region * REGION_BYTES) / BLOCK_BYTES]
      if (holder === undefined) continue
      try {
        await readBlock(files, holder, data.subarray(done, done + BLOCK_BYTES), offset + done)
      } catch (error) {
        throw ioFailure(`reading ${BLOCK_BYTES} bytes at ${offset + done} from ${holder}`, error)
      }
    }
    return data
  }

  /**
   * Rewrites blocks of a layer, durably, and reads them back. `expected` is the digest of each as it is, zeros for one that cannot be
   * read: that may also lie in a removed layer below. CONFLICT when one is something else, or is not held by the layer: nothing is
   * changed then. BUSY during a purge, IO, NO_SPACE.
   */
  heal(layer: string, offset: number, data: Buffer, expected: Buffer): Promise<void> {
    const healed = this.#healing.then(() => this.#heal(layer, offset, data, expected))
    this.#healing = healed.catch(() => undefined)
    return healed
  }

  async #heal(layer: string, offset: number, data: Buffer, expected: Buffer): Promise<void> {
    const region = checkBlocks(offset, data.length)
    if (expected.length !== (data.length / BLOCK_BYTES) * DIGEST_BYTES) throw new LonghornError('USAGE', `${expected.length} bytes are not the digests of ${data.length} bytes`)
    const volume = this.#replica.openVolume
    this.#checkNoPurge()
    await using files = new LayerFiles(volume)
    files.getFrozen(layer)
    const first = (offset - region * REGION_BYTES) / BLOCK_BYTES
    const now = await blockDigests(files, layer, region, first, data.length / BLOCK_BYTES)
    for (let index = 0; index * BLOCK_BYTES < data.length; index++) {
      const flags = now.flags[index]!
      const digest = now.digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
      const wanted = expected.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
      if ((flags & BLOCK_FLAG.HELD) === 0 || !digest.equals(wanted)) throw new LonghornError('CONFLICT', `${layer} has changed at ${offset + index * BLOCK_BYTES} since it was compared`)
    }
    const holders = await resolve(files, layer, region)
    this.#checkNoPurge()
    for (let done = 0; done < data.length; ) {
      const holder = holders[first + done / BLOCK_BYTES]!
      let end = done
      while (end < data.length && holders[first + end / BLOCK_BYTES] === holder) end += BLOCK_BYTES
      await rewrite(files, holder, offset + done, data.subarray(done, end))
      done = end
    }
  }

  /** A purge that is asked for from now on waits for settled(). */
  #checkNoPurge(): void {
    if (this.#replica.isPurging) throw new LonghornError('BUSY', 'the replica is purging: what it merges cannot be healed meanwhile')
  }
}

/** Up to the end of the layer. Throws IO, NO_SPACE. */
async function rewrite(files: LayerFiles, layer: string, offset: number, data: Buffer): Promise<void> {
  const path = join(files.volume.directory.path, layer)
  const bytes = data.subarray(0, Math.min(data.length, files.get(layer).sizeBytes - offset))
  try {
    await using file = await open(path, 'r+')
    for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten
    await file.datasync()
    const back = await readFromDisk(path, bytes.length, offset)
    if (!back.equals(bytes)) throw new LonghornError('IO', `${layer} gives back something else than what was written to it: its disk is failing`)
  } catch (error) {
    throw ioFailure(`healing ${bytes.length} bytes at ${offset} of ${layer}`, error)
  }
}

/** Undefined when something of it cannot be read. */
async function regionDigest(files: LayerFiles, layer: string, region: number, held: Uint8Array, pace: Pace): Promise<Buffer | undefined> {
  const hash = createHash('sha256').update(held)
  const slice = Buffer.allocUnsafe(SLICE_BYTES)
  const file = await files.file(layer)
  try {
    for (let from = held.indexOf(1); from !== -1; ) {
      let end = from
      while (end < BLOCKS_PER_REGION && held[end] === 1 && (end - from) * BLOCK_BYTES < SLICE_BYTES) end++
      const bytes = slice.subarray(0, (end - from) * BLOCK_BYTES)
      const at = region * REGION_BYTES + from * BLOCK_BYTES
      await pace.run(async () => {
        await readPadded(file, bytes, at)
        hash.update(bytes)
      })
      from = held.indexOf(1, end)
    }
  } catch (error) {
    if (errnoOf(error) === 'EIO') return undefined
    throw error
  }
  return hash.digest()
}

/**
 * What is read in `count` blocks of a region from its block `first` on: whether the layer holds them, and their digests. A block that
 * cannot be read and lies in a removed layer below counts as held: the others may have merged that layer, so that only this one is compared.
 */
async function blockDigests(files: LayerFiles, layer: string, region: number, first: number, count: number): Promise<BlockDigests> {
  const holders = await resolve(files, layer, region)
  const flags = Buffer.alloc(count)
  const digests = Buffer.alloc(count * DIGEST_BYTES)
  const block = Buffer.allocUnsafe(BLOCK_BYTES)
  for (let index = 0; index < count; index++) {
    const holder = holders[first + index]
    if (holder === layer) flags[index] = BLOCK_FLAG.HELD
    try {
      if (holder === undefined) block.fill(0)
      else await readBlock(files, holder, block, region * REGION_BYTES + (first + index) * BLOCK_BYTES)
      sha256(block).copy(digests, index * DIGEST_BYTES)
    } catch (error) {
      if (errnoOf(error) !== 'EIO') throw ioFailure(`reading ${holder}`, error)
      flags[index]! |= BLOCK_FLAG.UNREADABLE
      if (holder !== undefined && files.get(holder).meta.removed) flags[index]! |= BLOCK_FLAG.HELD
    }
  }
  return {flags, digests}
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

/** The layer that each block of a region is read from, seen from `layer`. */
async function resolve(files: LayerFiles, layer: string, region: number): Promise<(string | undefined)[]> {
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
  return holders
}

/**
 * 1 for each block that somebody can read through this layer: it is a snapshot that is kept or the head, or one above it is and nothing
 * in between hides the block. What a purge has not given back yet, or merged on one replica and not yet on another, is hidden.
 */
async function visibleFrom(files: LayerFiles, file: string, region: number): Promise<Uint8Array> {
  const {meta} = files.get(file)
  const visible = new Uint8Array(BLOCKS_PER_REGION)
  if (!meta.removed || isHeadName(file)) return visible.fill(1)
  for (const child of files.children(file)) {
    const through = await visibleFrom(files, child.file, region)
    if (!through.includes(1)) continue
    const held = await files.held(child.file, region)
    for (const [index, one] of through.entries()) if (one === 1 && held[index] === 0) visible[index] = 1
  }
  return visible
}

/** The region that the blocks are in. Throws USAGE when they are not whole ones of one region. */
function checkBlocks(offset: number, length: number): number {
  const region = Math.floor(offset / REGION_BYTES)
  if (offset % BLOCK_BYTES === 0 && length % BLOCK_BYTES === 0 && length > 0 && offset + length <= (region + 1) * REGION_BYTES) return region
  throw new LonghornError('USAGE', `${length} bytes at ${offset} are not whole blocks of one region of ${REGION_BYTES} bytes`)
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest()
}
