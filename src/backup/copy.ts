import {LonghornError} from '../lib/errors.js'
import {BlockSealing, isPlausibleObject} from './block-sealing.js'
import {describeBackup, findBackup, type ReadableBackup} from './catalog.js'
import {checkSealed} from './encryption/volume-cipher.js'
import {formatBackupRecord, isFinished, unfinishedRecord} from './format/backup-record.js'
import {maxObjectBytes} from './format/block-codec.js'
import {formatBlockForm} from './format/block-form.js'
import {writeBackupRecord} from './format/long-record.js'
import {backupKey, blockKey} from './format/store-layout.js'
import {inParallel} from './parallel.js'
import {offsetsBySum, readBlock} from './read-block.js'
import {retried} from './retry.js'
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
 * An encrypted backup stays encrypted with the same key, and without that key is copied unread: then only a wrong size or header is found.
 *
 * CONFLICT when the other store has a finished backup of that name; else as describeBackup(), readBlock() and StoreLock.take().
 */
export async function copyBackup(from: BackupStore, to: BackupStore, options: CopyOptions): Promise<TransferProgress> {
  const {volume, signal} = options
  await using _reading = await StoreLock.take(from, volume, LOCK.CREATE_OR_RESTORE, options)
  const backup = await describeBackup(from, volume, options.backup, signal)
  await using lock = await StoreLock.take(to, volume, LOCK.CREATE_OR_RESTORE, options)
  const there = await findBackup(to, volume, options.backup, signal)
  if (there !== undefined && isFinished(there)) throw new LonghornError('CONFLICT', `${to.url} has a backup ${options.backup} of volume ${volume} already`)
  const writer = await VolumeWriter.openForCopy(to, backup.volume, backup.form, signal)
  const text = formatBlockForm(writer.form)
  const key = backupKey(volume, options.backup)
  await to.put(key, Buffer.from(formatBackupRecord(unfinishedRecord(options.backup, volume, text))), signal)
  try {
    const sums = await offsetsBySum(backup.record.blocks)
    const present = await writer.presentBlocks(backup.blockBytes, sums.size, signal)
    const counter = new ProgressCounter(sums.size, options.onProgress)
    let written = 0
    let newBytes = 0
    await inParallel(sums.keys(), options.concurrency, async (sum, signal) => {
      lock.checkHeld()
      if (await present.has(sum, signal)) return counter.add(1, backup.blockBytes, 0)
      const object = await objectFor(writer, from, backup, sum, signal)
      await retried(() => to.put(blockKey(volume, sum), object, signal), signal)
      written++
      newBytes += object.length
      counter.add(1, backup.blockBytes, object.length)
    }, signal)
    lock.checkHeld()
    const record = {...backup.record, compressionMethod: text, newBytes, reuploadedBytes: 0}
    await to.put(key, await writeBackupRecord(record), signal)
    await writer.finish(record, backup.volume.sizeBytes, written, signal)
    return counter.progress
  } catch (error) {
    await removeUnfinished(to, key)
    throw error
  }
}

/** What to store for a block. */
async function objectFor({form}: VolumeWriter, from: BackupStore, backup: ReadableBackup, sum: string, signal: AbortSignal): Promise<Buffer> {
  const {keyId} = backup.form
  if (keyId !== undefined && from.keys?.find(keyId) === undefined) return unreadObject(from, backup, keyId, sum, signal)
  const {block, content} = await readBlock(from, backup, sum, signal)
  const sameForm = keyId !== undefined || (backup.form.method === form.method && isPlausibleObject(content.length, form, backup.blockBytes))
  return sameForm ? content : new BlockSealing(form, undefined).encode(block, sum)
}

/** An encrypted block, as it is. */
async function unreadObject(from: BackupStore, {record, form, blockBytes}: ReadableBackup, keyId: string, sum: string, signal: AbortSignal): Promise<Buffer> {
  const key = blockKey(record.volumeName, sum)
  const object = await retried(() => from.get(key, maxObjectBytes(blockBytes), signal), signal, {io: true})
  checkSealed(object, keyId, key)
  if (!isPlausibleObject(object.length, form, blockBytes)) throw new LonghornError('CORRUPT', `${key} has ${object.length} bytes, which cannot be a block of ${blockBytes}`, {key})
  return object
}
