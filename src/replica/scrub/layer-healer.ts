import {join} from 'node:path'
import {LonghornError} from '../../lib/errors.js'
import {BLOCK_BYTES, BLOCK_FLAG, BLOCKS_PER_REGION, DIGEST_BYTES, runsOf} from '../../protocol/scrub-units.js'
import {ioFailure} from '../io-failure.js'
import {Pace} from '../purge/copy-data.js'
import {LayerFiles} from './layer-files.js'
import type {ScrubbedReplica} from './layer-scrubber.js'
import {blocksAt, RegionBlocks, sha256} from './region-blocks.js'
import {rewriteRuns, type Run} from './rewrite-runs.js'

/** Blocks in ascending order, and digests, one after the other. */
export interface BlockContents {
  readonly data: Buffer
  /** What each block is now; zeros for one that cannot be read. */
  readonly expected: Buffer
  /** Of `data`. */
  readonly digests: Buffer
}

/** A block that could not be healed: its number within the region, and why. */
export interface BlockFailure {
  readonly block: number
  /** CONFLICT: it is something else than was expected, and stays so. IO, NO_SPACE. */
  readonly error: LonghornError
}

export interface HealedBlocks {
  /** All that was asked for, ascending. */
  readonly blocks: readonly number[]
  /** Ascending. */
  readonly failures: readonly BlockFailure[]
}

interface HealJob {
  readonly layer: string
  readonly region: number
  readonly blocks: readonly number[]
  readonly data: Buffer
  readonly expected: Buffer
  /** Nothing is changed when one of them is something else than was expected. */
  readonly together: boolean
}

interface PlacedBlock {
  readonly block: number
  readonly bytes: Buffer
}

/** Rewrites what is wrong in the frozen layers of a replica. */
export class LayerHealer {
  readonly #replica: ScrubbedReplica
  readonly #share: number
  #healing: Promise<unknown> = Promise.resolve()

  /** `share`: of the time that it may be at work. */
  constructor(replica: ScrubbedReplica, share: number) {
    this.#replica = replica
    this.#share = share
  }

  /** Resolves when nothing is being rewritten: layers may be merged then. */
  async settled(): Promise<void> {
    await this.#healing
  }

  /**
   * Rewrites blocks of a layer, durably, and reads them back. `expected` is the digest of each as it is, zeros for one that cannot be
   * read: that may also lie in a removed layer below. CONFLICT when one is something else, or is not held by the layer: nothing is
   * changed then. BUSY during a purge, IO, NO_SPACE.
   */
  async heal(layer: string, offset: number, data: Buffer, expected: Buffer, signal: AbortSignal): Promise<void> {
    const {region, blocks} = blocksAt(offset, data.length)
    if (expected.length !== blocks.length * DIGEST_BYTES) throw new LonghornError('USAGE', `${expected.length} bytes are not the digests of ${data.length} bytes`)
    const [failure] = await this.#inTurn({layer, region, blocks, data, expected, together: true}, signal)
    if (failure !== undefined) throw failure.error
  }

  /**
   * The same for blocks anywhere in a region; gives those that could not be healed, ascending, each with its error: CONFLICT, IO, NO_SPACE. The others
   * are healed. Throws USAGE for what does not fit together, CORRUPT when `data` is not what its digests say, and BUSY, IO, NOT_FOUND when nothing was changed.
   */
  async healBlocks(layer: string, region: number, which: Buffer, {data, expected, digests}: BlockContents, signal: AbortSignal): Promise<HealedBlocks> {
    const blocks = blocksIn(which)
    const fits = data.length === blocks.length * BLOCK_BYTES && [expected, digests].every(({length}) => length === blocks.length * DIGEST_BYTES)
    if (!fits) throw new LonghornError('USAGE', `${data.length}, ${expected.length} and ${digests.length} bytes are not ${blocks.length} blocks with the digests before and after`)
    for (const index of blocks.keys()) {
      if (!sha256(blockOf(data, index)).equals(digestOf(digests, index))) throw new LonghornError('CORRUPT', `what was sent for block ${blocks[index]} of region ${region} is not what its digest says`)
    }
    return {blocks, failures: await this.#inTurn({layer, region, blocks, data, expected, together: false}, signal)}
  }

  /** One after the other; of the time at most its share. */
  #inTurn(job: HealJob, signal: AbortSignal): Promise<BlockFailure[]> {
    return new Pace(this.#share, signal).run(() => {
      const healed = this.#healing.then(() => this.#heal(job, signal))
      this.#healing = healed.catch(() => undefined)
      return healed
    })
  }

  async #heal({layer, region, blocks, data, expected, together}: HealJob, signal: AbortSignal): Promise<BlockFailure[]> {
    const volume = this.#replica.openVolume
    this.#checkNoPurge()
    await using files = new LayerFiles(volume)
    files.getFrozen(layer)
    const found = await RegionBlocks.find(files, layer, region)
    const now = await found.digests(blocks, new Pace(1, signal))
    const failures: BlockFailure[] = []
    const writes = new Map<string, PlacedBlock[]>()
    for (const [index, block] of blocks.entries()) {
      if ((now.flags[index]! & BLOCK_FLAG.HELD) === 0 || !digestOf(now.digests, index).equals(digestOf(expected, index))) {
        failures.push({block, error: new LonghornError('CONFLICT', `${layer} has changed at ${found.offsetOf(block)} since it was compared`)})
        continue
      }
      const holder = found.holders[block]!
      if (!writes.has(holder)) writes.set(holder, [])
      writes.get(holder)!.push({block, bytes: blockOf(data, index)})
    }
    if (together && failures.length > 0) return failures
    this.#checkNoPurge()
    for (const [holder, placed] of writes) failures.push(...(await rewrite(found, holder, placed)))
    return failures.sort((a, b) => a.block - b.block)
  }

  /** A purge that is asked for from now on waits for settled(). */
  #checkNoPurge(): void {
    if (this.#replica.isPurging) throw new LonghornError('BUSY', 'the replica is purging: what it merges cannot be healed meanwhile')
  }
}

/** Up to the end of the layer; gives what could not be written. */
async function rewrite(found: RegionBlocks, holder: string, placed: readonly PlacedBlock[]): Promise<BlockFailure[]> {
  const {files} = found
  const {sizeBytes} = files.get(holder)
  const bytesOf = new Map(placed.map(({block, bytes}) => [block, bytes]))
  const runs = runsOf([...bytesOf.keys()]).map(({first, count}): Run => {
    const offset = found.offsetOf(first)
    const bytes = Buffer.concat(Array.from({length: count}, (_, index) => bytesOf.get(first + index)!))
    return {offset, bytes: bytes.subarray(0, sizeBytes - offset)}
  })
  try {
    const refused = await rewriteRuns(join(files.volume.directory.path, holder), runs)
    return refused.map(({offset, error}) => ({block: found.blockAt(offset), error}))
  } catch (error) {
    const failure = ioFailure(`opening ${holder} to heal it`, error)
    return placed.map(({block}) => ({block, error: failure}))
  }
}

/** The blocks that a byte per block of a region says. Throws USAGE for what is something else. */
function blocksIn(which: Buffer): number[] {
  const blocks = [...which.keys()].filter(block => which[block] === 1)
  if (which.length !== BLOCKS_PER_REGION || blocks.length === 0 || which.some(one => one > 1)) {
    throw new LonghornError('USAGE', `which blocks of a region are meant is said by ${BLOCKS_PER_REGION} bytes of 0 and 1, not all of them 0`)
  }
  return blocks
}

function blockOf(data: Buffer, index: number): Buffer {
  return data.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)
}

function digestOf(digests: Buffer, index: number): Buffer {
  return digests.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
}
