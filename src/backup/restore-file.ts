import {randomBytes} from 'node:crypto'
import {constants} from 'node:fs'
import {open, rename, rm, stat} from 'node:fs/promises'
import {basename, dirname, join, resolve} from 'node:path'
import {errnoOf, LonghornError, messageOf} from '../lib/errors.js'
import {BlockMemory} from './block-memory.js'
import {openBackup} from './catalog.js'
import {ImageFile} from './image-file.js'
import {inParallel} from './parallel.js'
import {offsetsBySum, readBlock} from './read-block.js'
import {readUnderLock, type ReadGuard} from './read-under-lock.js'
import {LOCK, StoreLock, type LockOptions} from './store-lock.js'
import type {BackupStore} from './store/backup-store.js'
import {ProgressCounter, type OnProgress, type TransferProgress} from './transfer-progress.js'

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
  const partial = join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}.partial`)
  try {
    const restored = await readUnderLock(
      signal => StoreLock.take(store, options.volume, LOCK.CREATE_OR_RESTORE, {...options, signal}),
      (guard, signal) => writePartial(store, partial, {...options, signal}, guard),
      options.signal,
    )
    await checkTarget(path, options.force === true)
    await rename(partial, path)
    await using directory = await open(dirname(path), 'r')
    await directory.sync()
    return restored
  } catch (error) {
    await rm(partial, {force: true})
    throw fileFailure(path, error)
  }
}

/** Writes a backup to a new file: the blocks, where they are not zero. Durable when it resolves. */
async function writePartial(store: BackupStore, partial: string, options: RestoreOptions, guard: ReadGuard): Promise<Restored> {
  const backup = await openBackup(store, options.volume, options.backup, options.signal)
  const {volume, record, blockBytes} = backup
  await using image = await ImageFile.over(await open(partial, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600), partial)
  await image.file.truncate(volume.sizeBytes)
  const counter = new ProgressCounter(record.blocks.length, options.onProgress)
  const memory = new BlockMemory(blockBytes)
  await inParallel(await offsetsBySum(record.blocks), options.concurrency, async ([sum, offsets], signal) => {
    guard.checkHeld()
    const rooms = memory.take()
    const {content, block} = await readBlock(store, backup, sum, signal, rooms)
    for (const offset of offsets) await image.write(block.subarray(0, Math.min(blockBytes, volume.sizeBytes - offset)), offset)
    counter.add(offsets.length, offsets.length * blockBytes, content.length)
    memory.give(rooms)
  }, options.signal)
  await image.sync()
  return {sizeBytes: volume.sizeBytes, progress: counter.progress}
}

/** What has that name is a file that may be replaced, if `force`, or nothing. USAGE, CONFLICT, and what looking at it fails with. */
export async function checkTarget(path: string, force: boolean): Promise<void> {
  const status = await stat(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw fileFailure(path, error)
    return undefined
  })
  if (status === undefined) return
  if (!status.isFile()) throw new LonghornError('USAGE', `${path} is no regular file: restore to a new file and copy it from there`)
  if (!force) throw new LonghornError('CONFLICT', `${path} exists already; --force replaces it when the restore is complete`)
}

function fileFailure(path: string, error: unknown): unknown {
  const errno = errnoOf(error)
  if (error instanceof LonghornError || errno === undefined || errno === 'ABORT_ERR') return error
  return new LonghornError(errno === 'ENOSPC' || errno === 'EDQUOT' ? 'NO_SPACE' : 'IO', `restoring to ${path}: ${messageOf(error)}`, {}, {cause: error})
}
