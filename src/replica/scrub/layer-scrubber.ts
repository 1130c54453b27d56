import {createHash} from 'node:crypto'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {BLOCK_BYTES, BLOCK_FLAG, BLOCKS_PER_REGION, DIGEST_BYTES, MOST_REGIONS, REGION_BYTES, REGION_STATE} from '../../protocol/scrub-units.js'
import {ioFailure} from '../io-failure.js'
import {isHeadName} from '../layer-names.js'
import {Pace} from '../purge/copy-data.js'
import type {ReplicaVolume} from '../replica-volume.js'
import {LayerFiles, readPadded} from './layer-files.js'
import {LayerHealer} from './layer-healer.js'
import {blocksAt, RegionBlocks, SLICE_BYTES, type BlockDigests} from './region-blocks.js'

/** The share of the time that reading and healing may take: the volume is being used meanwhile. */
const SHARE = 0.5

export interface RegionDigests {
  /** Of the layer's file. */
  readonly sizeBytes: number
  readonly digests: Buffer
  readonly states: Buffer
}

/** What the scrubber needs to know of its replica. */
export interface ScrubbedReplica {
  /** Throws CONFLICT when the replica is not open. */
  readonly openVolume: ReplicaVolume
  readonly isPurging: boolean
}

/** Tells an engine what the frozen layers of this replica hold, and has what is wrong in them rewritten. */
export class LayerScrubber {
  readonly healer: LayerHealer
  readonly #replica: ScrubbedReplica

  constructor(replica: ScrubbedReplica) {
    this.#replica = replica
    this.healer = new LayerHealer(replica, SHARE)
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
  async blocks(layer: string, region: number, signal: AbortSignal): Promise<BlockDigests> {
    await using files = new LayerFiles(this.#replica.openVolume)
    files.getFrozen(layer)
    const found = await RegionBlocks.find(files, layer, region)
    const result = await found.digests([...Array(BLOCKS_PER_REGION).keys()], new Pace(SHARE, signal))
    const visible = await visibleFrom(files, layer, region)
    for (const [index, one] of visible.entries()) if (one === 1) result.flags[index]! |= BLOCK_FLAG.VISIBLE
    return result
  }

  /** What is read through a layer and those below it: whole blocks of one region. Errors as those of digests(). */
  async read(layer: string, offset: number, length: number, signal: AbortSignal): Promise<Buffer> {
    const {region, blocks} = blocksAt(offset, length)
    await using files = new LayerFiles(this.#replica.openVolume)
    files.getFrozen(layer)
    const found = await RegionBlocks.find(files, layer, region)
    const data = Buffer.allocUnsafe(length)
    await found.read(blocks, new Pace(SHARE, signal), (block, bytes, failure) => {
      if (bytes === undefined) throw ioFailure(`reading ${BLOCK_BYTES} bytes at ${found.offsetOf(block)} from ${found.holders[block]}`, failure)
      bytes.copy(data, found.offsetOf(block) - offset)
    })
    return data
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
