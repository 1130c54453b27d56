import {LonghornError} from '../lib/errors.js'
import {findBackup, openBackup} from './catalog.js'
import {formatBackupRecord, isFinished, unfinishedRecord} from './format/backup-record.js'
import {encodeBlock, isPlausible} from './format/block-codec.js'
import {backupKey, blockKey} from './format/store-layout.js'
import {inParallel} from './parallel.js'
import {offsetsBySum, readBlock} from './read-block.js'
import {LOCK, StoreLock, type LockOptions} from './store-lock.js'
import type {BackupStore} from './store/backup-store.js'
import {ProgressCounter, type OnProgress, type TransferProgress} from './transfer-progress.js'
import {removeUnfinished, VolumeWriter} from './volume-writer.js'

export interface CopyOptions extends LockOptions {
  readonly volume: string
  readonly backup: string
  readonly concurrency: number
  readonly onProgress?: OnProgress | undefined
}

/**
 * Copies a backup to another store, under the same names. Blocks that are there already are not sent again, so that what was interrupted goes on;
 * every block is checked on its way. It is listed as finished when all of it is there.
 *
 * CONFLICT when the other store has a finished backup of that name; else as openBackup(), readBlock() and StoreLock.take().
 */
export async function copyBackup(from: BackupStore, to: BackupStore, options: CopyOptions): Promise<TransferProgress> {
  const {volume, signal} = options
  await using _reading = await StoreLock.take(from, volume, LOCK.CREATE_OR_RESTORE, options)
  const backup = await openBackup(from, volume, options.backup, signal)
  await using lock = await StoreLock.take(to, volume, LOCK.CREATE_OR_RESTORE, options)
  const there = await findBackup(to, volume, options.backup, signal)
  if (there !== undefined && isFinished(there)) throw new LonghornError('CONFLICT', `${to.url} has a backup ${options.backup} of volume ${volume} already`)
  const writer = await VolumeWriter.open(to, backup.volume, signal)
  const key = backupKey(volume, options.backup)
  await to.put(key, Buffer.from(formatBackupRecord(unfinishedRecord(options.backup, volume, writer.method))), signal)
  try {
    const sums = offsetsBySum(backup.record.blocks)
    const present = await writer.presentBlocks(backup.blockBytes, sums.size, signal)
    const counter = new ProgressCounter(sums.size, options.onProgress)
    let written = 0
    let newBytes = 0
    await inParallel(sums.keys(), options.concurrency, async (sum, signal) => {
      lock.checkHeld()
      if (await present.has(sum, signal)) return counter.add(1, backup.blockBytes, 0)
      const {block, content} = await readBlock(from, backup, sum, signal)
      const sameForm = backup.method === writer.method && isPlausible(content.length, writer.method, backup.blockBytes)
      const object = sameForm ? content : await encodeBlock(block, writer.method)
      await to.put(blockKey(volume, sum), object, signal)
      written++
      newBytes += object.length
      counter.add(1, backup.blockBytes, object.length)
    }, signal)
    lock.checkHeld()
    const record = {...backup.record, compressionMethod: writer.method, newBytes, reuploadedBytes: 0}
    await to.put(key, Buffer.from(formatBackupRecord(record)), signal)
    await writer.finish(record, backup.volume.sizeBytes, written, signal)
    return counter.progress
  } catch (error) {
    await removeUnfinished(to, key)
    throw error
  }
}
