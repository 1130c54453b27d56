import {randomBytes} from 'node:crypto'
import {constants} from 'node:fs'
import {open, rename, rm, stat, type FileHandle} from 'node:fs/promises'
import {basename, dirname, join, resolve} from 'node:path'
import {errnoOf, LonghornError, messageOf} from '../lib/errors.js'
import {openBackup, type ReadableBackup} from './catalog.js'
import {inParallel} from './parallel.js'
import {offsetsBySum, readBlock} from './read-block.js'
import {LOCK, StoreLock, type LockOptions} from './store-lock.js'
import type {BackupStore} from './store/backup-store.js'
import {ProgressCounter, type OnProgress, type TransferProgress} from './transfer-progress.js'

/** What is zero from here to there stays a hole. */
const GRAIN_BYTES = 4096
const zeros = Buffer.alloc(GRAIN_BYTES)

export interface RestoreOptions extends LockOptions {
  readonly volume: string
  readonly backup: string
  /** Blocks at once, each of which takes up to twice its size in memory. */
  readonly concurrency: number
  /** Replace a file of that name. */
  readonly force?: boolean
  readonly onProgress?: OnProgress | undefined
}

export interface Restored {
  readonly sizeBytes: number
  readonly progress: TransferProgress
}

/**
 * Restores a backup to a file, as large as the volume was at its last backup, sparse. Every block is checked. The file appears under its name
 * when it is complete and durable, and never before: until then it is `.NAME.XXXX.partial` beside it, which goes when this fails.
 *
 * CONFLICT when there is a file of that name; NOT_FOUND, BUSY, CORRUPT as openBackup() and readBlock().
 */
export async function restoreToFile(store: BackupStore, file: string, options: RestoreOptions): Promise<Restored> {
  const path = resolve(file)
  await checkTarget(path, options.force === true)
  await using lock = await StoreLock.take(store, options.volume, LOCK.CREATE_OR_RESTORE, options)
  const backup = await openBackup(store, options.volume, options.backup, options.signal)
  const partial = join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}.partial`)
  try {
    const progress = await writePartial(store, partial, backup, options, lock)
    await checkTarget(path, options.force === true)
    await rename(partial, path)
    await using directory = await open(dirname(path), 'r')
    await directory.sync()
    return {sizeBytes: backup.volume.sizeBytes, progress}
  } catch (error) {
    await rm(partial, {force: true})
    throw fileFailure(path, error)
  }
}

/** Writes the blocks of a backup into a file of zeros; where they are zero nothing is written. Durable when it resolves. */
export async function writeBlocks(store: BackupStore, file: FileHandle, backup: ReadableBackup, options: RestoreOptions, lock: StoreLock): Promise<TransferProgress> {
  const {volume, record, blockBytes} = backup
  const counter = new ProgressCounter(record.blocks.length, options.onProgress)
  await inParallel(offsetsBySum(record.blocks), options.concurrency, async ([sum, offsets], signal) => {
    lock.checkHeld()
    const {content, block} = await readBlock(store, backup, sum, signal)
    for (const offset of offsets) await writeData(file, block.subarray(0, Math.min(blockBytes, volume.sizeBytes - offset)), offset)
    counter.add(offsets.length, offsets.length * blockBytes, content.length)
  }, options.signal)
  await file.sync()
  return counter.progress
}

async function writePartial(store: BackupStore, partial: string, backup: ReadableBackup, options: RestoreOptions, lock: StoreLock): Promise<TransferProgress> {
  await using file = await open(partial, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  await file.truncate(backup.volume.sizeBytes)
  return await writeBlocks(store, file, backup, options, lock)
}

async function checkTarget(path: string, force: boolean): Promise<void> {
  const status = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw fileFailure(path, error)
    return undefined
  })
  if (status === undefined) return
  if (!status.isFile()) throw new LonghornError('USAGE', `${path} is no regular file: restore to a new file and copy it from there`)
  if (!force) throw new LonghornError('CONFLICT', `${path} exists already; --force replaces it when the restore is complete`)
}

/** Writes the runs of a block that are not zero. */
async function writeData(file: FileHandle, block: Buffer, offset: number): Promise<void> {
  let from = -1
  for (let at = 0; at <= block.length; at += GRAIN_BYTES) {
    const data = at < block.length && !isZero(block.subarray(at, at + GRAIN_BYTES))
    if (data && from === -1) from = at
    if (data || from === -1) continue
    await writeAll(file, block.subarray(from, at), offset + from)
    from = -1
  }
  if (from !== -1) await writeAll(file, block.subarray(from), offset + from)
}

function isZero(grain: Buffer): boolean {
  return grain.equals(grain.length === GRAIN_BYTES ? zeros : zeros.subarray(0, grain.length))
}

async function writeAll(file: FileHandle, data: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < data.length; ) done += (await file.write(data, done, data.length - done, offset + done)).bytesWritten
}

function fileFailure(path: string, error: unknown): unknown {
  const errno = errnoOf(error)
  if (error instanceof LonghornError || errno === undefined || errno === 'ABORT_ERR') return error
  return new LonghornError(errno === 'ENOSPC' || errno === 'EDQUOT' ? 'NO_SPACE' : 'IO', `restoring to ${path}: ${messageOf(error)}`, {}, {cause: error})
}
