import {isKind} from '../lib/errors.js'
import {BlockMemory} from './block-memory.js'
import {blockSealing} from './block-sealing.js'
import type {Range} from './block-source.js'
import {findBackup, type ReadableBackup} from './catalog.js'
import {blockBytesOf, isFinished, type BackupBlock} from './format/backup-record.js'
import {backupKey} from './format/store-layout.js'
import {inParallel} from './parallel.js'
import {offsetsBySum, readBlock} from './read-block.js'
import type {StoreLock} from './store-lock.js'
import type {BackupStore} from './store/backup-store.js'
import {ProgressCounter, type OnProgress, type TransferProgress} from './transfer-progress.js'

/** Bound of the blocks in memory, with their compressed form. */
const MEMORY_BYTES = 96 * 1024 ** 2

/** What a backup is restored into. Calls for different offsets may overlap in time. */
export interface RestoreTarget {
  /** What is there, where that may be what is to be written; undefined where it certainly need not be looked at. */
  found(offset: number, length: number): Promise<Buffer | undefined>
  /** Makes this the content at `offset`. `block` is not changed meanwhile. */
  write(block: Buffer, offset: number): Promise<void>
  /** Makes a range read as zeros. */
  clear(range: Range): Promise<void>
}

export interface RestoreBlocksOptions {
  /** Blocks at once; fewer when they are large. */
  readonly concurrency: number
  /** Blocks that the target holds and that are right; sorted, of the same size as those of the backup. Undefined: nothing is known. */
  readonly base?: readonly BackupBlock[] | undefined
  readonly onProgress?: OnProgress | undefined
  readonly signal?: AbortSignal | undefined
}

/** What has to be done to come from one list of blocks to another. */
interface Changes {
  readonly fetch: readonly BackupBlock[]
  readonly clear: readonly Range[]
}

/**
 * Brings a target to the content of a backup: fetches the blocks that it lacks, each checked by its sum, and clears what the backup has not.
 * What several places share is fetched once. Errors as those of readBlock(), of the target, and BUSY when the lock is lost.
 */
export async function restoreBlocks(store: BackupStore, backup: ReadableBackup, target: RestoreTarget, lock: StoreLock, options: RestoreBlocksOptions): Promise<TransferProgress> {
  const {record, volume, blockBytes} = backup
  const {base, concurrency, signal} = options
  const length = (offset: number): number => Math.min(blockBytes, volume.sizeBytes - offset)
  const {fetch, clear} = base === undefined ? {fetch: record.blocks, clear: gaps(record.blocks, blockBytes, volume.sizeBytes)} : difference(base, record.blocks, blockBytes)
  for (const range of clear) {
    signal?.throwIfAborted()
    await target.clear(range)
  }
  const counter = new ProgressCounter(fetch.length, options.onProgress)
  const memory = new BlockMemory(blockBytes)
  const sealing = await blockSealing(store, backup.form, record.volumeName)
  /** Whether the target has the block already, so that it need not be fetched. */
  const has = async (offset: number, sum: string): Promise<boolean> => {
    const found = await target.found(offset, length(offset))
    if (found === undefined) return false
    // The last block of a volume that ends within it is stored whole.
    const block = found.length === blockBytes ? found : Buffer.concat([found], blockBytes)
    return (await sealing.sum(block)) === sum
  }
  const limit = Math.max(1, Math.min(concurrency, Math.floor(MEMORY_BYTES / (3 * blockBytes))))
  await inParallel(await offsetsBySum(fetch), limit, async ([sum, offsets], signal) => {
    const lacking: number[] = []
    for (const offset of offsets) if (!(await has(offset, sum))) lacking.push(offset)
    let objectBytes = 0
    if (lacking.length > 0) {
      lock.checkHeld()
      const rooms = memory.take()
      const {content, block} = await readBlock(store, backup, sum, signal, rooms)
      objectBytes = content.length
      for (const offset of lacking) await target.write(block.subarray(0, length(offset)), offset)
      memory.give(rooms)
    }
    counter.add(offsets.length, offsets.length * blockBytes, objectBytes)
  }, signal)
  return counter.progress
}

/** The blocks of an earlier backup that is still in the store and fits to this one; undefined when there is none. */
export async function findBaseBlocks(store: BackupStore, {record, blockBytes}: ReadableBackup, earlier: string, signal?: AbortSignal): Promise<readonly BackupBlock[] | undefined> {
  try {
    const base = await findBackup(store, record.volumeName, earlier, signal)
    if (base === undefined || !isFinished(base) || base.singleFile !== '') return undefined
    return blockBytesOf(base, backupKey(record.volumeName, earlier)) === blockBytes ? base.blocks : undefined
  } catch (error) {
    if (isKind(error, 'CORRUPT')) return undefined
    throw error
  }
}

/** Both lists are sorted. */
function difference(from: readonly BackupBlock[], to: readonly BackupBlock[], blockBytes: number): Changes {
  const fetch: BackupBlock[] = []
  const clear: Range[] = []
  let at = 0
  for (const block of to) {
    for (; at < from.length && from[at]!.offset < block.offset; at++) clear.push({offset: from[at]!.offset, length: blockBytes})
    const same = from[at]?.offset === block.offset ? from[at++] : undefined
    if (same?.sum !== block.sum) fetch.push(block)
  }
  for (; at < from.length; at++) clear.push({offset: from[at]!.offset, length: blockBytes})
  return {fetch, clear}
}

function gaps(blocks: readonly BackupBlock[], blockBytes: number, sizeBytes: number): Range[] {
  const ranges: Range[] = []
  let end = 0
  for (const {offset} of [...blocks, {offset: sizeBytes}]) {
    if (offset > end) ranges.push({offset: end, length: offset - end})
    end = offset + blockBytes
  }
  return ranges
}
