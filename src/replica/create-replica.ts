import {stat} from 'node:fs/promises'
import {dirname, join, resolve} from 'node:path'
import {errnoOf, LonghornError} from '../lib/errors.js'
import {DirectoryLock} from './directory-lock.js'
import {realDisk, type DiskSteps} from './disk-steps.js'
import {replaceFile} from './durable-file.js'
import {checkBlockSize} from './file-system.js'
import {ioFailure} from './io-failure.js'
import {listDirectory, readReplicaDirectory, readVolumeMeta} from './layer-chain.js'
import {formatLayerMeta, newHeadMeta} from './layer-meta.js'
import {FIRST_HEAD, isTemporaryName, metaFile, REVISION_COUNTER, VOLUME_META} from './layer-names.js'
import {MEMBERSHIP_FILE} from './membership.js'
import {newRevisionCounter} from './revision-counter.js'
import {formatVolumeMeta, newVolumeMeta, SECTOR_BYTES} from './volume-meta.js'

export interface CreateOptions {
  /** Keep upstream's revision counter. Off by default, as in upstream's manager since 1.7. */
  readonly revisionCounter?: boolean
  /** The lock of the directory, where the caller has it already and keeps it. */
  readonly lock?: DirectoryLock | undefined
  readonly disk?: DiskSteps
}

/**
 * Makes sure that `directory` holds a replica of `sizeBytes`: creates one where there is none, and is content with one
 * of that size. The directory itself is created (mode 0700), its parent must exist.
 *
 * A crash at any moment leaves either a complete replica or something that the next call takes for an unfinished
 * creation and starts over: volume.meta, the last file to appear, makes it a replica.
 *
 * USAGE for a size that is not a positive multiple of 512; CONFLICT when a replica of another size or something else is
 * there, which is then left untouched; NOT_FOUND when the parent is missing; BUSY when someone has the replica open;
 * UNSUPPORTED on a file system that cannot hold a replica.
 */
export async function createReplica(directory: string, sizeBytes: number, options: CreateOptions = {}): Promise<void> {
  const {disk = realDisk, revisionCounter = false} = options
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % SECTOR_BYTES !== 0) {
    throw new LonghornError('USAGE', `a volume of ${sizeBytes} bytes is not possible: the size must be a positive multiple of ${SECTOR_BYTES}`)
  }
  await makeReplicaDirectory(directory, disk)
  const lock = options.lock === undefined ? new DirectoryLock(directory) : undefined
  try {
    const entries = await listDirectory(directory)
    if (await isEmptyOrUnfinished(directory, entries)) {
      await checkBlockSize(directory)
      for (const file of entries) await disk.remove(join(directory, file))
      await createFiles(directory, sizeBytes, revisionCounter, disk)
    } else {
      await checkExisting(directory, sizeBytes)
    }
  } finally {
    lock?.close()
  }
}

/** Creates the directory (mode 0700) if it is not there. NOT_FOUND when its parent is missing. */
export async function makeReplicaDirectory(directory: string, disk: DiskSteps = realDisk): Promise<void> {
  const parent = dirname(resolve(directory))
  try {
    await disk.makeDirectory(directory, 0o700)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') {
      const message = `${parent} does not exist: create it, or mount the disk that belongs there, before creating a replica in it`
      throw new LonghornError('NOT_FOUND', message, {directory: parent}, {cause: error})
    }
    if (errnoOf(error) !== 'EEXIST') throw error
  }
  // Also when it was there: an earlier attempt may have been cut off between creating it and this.
  await disk.syncDirectory(parent)
}

async function createFiles(directory: string, sizeBytes: number, revisionCounter: boolean, disk: DiskSteps): Promise<void> {
  try {
    await disk.createSparse(join(directory, FIRST_HEAD), sizeBytes, 0o644)
    if (revisionCounter) await disk.writeSynced(join(directory, REVISION_COUNTER), newRevisionCounter(), 0o600)
    // This syncs the directory: the names of the files above are on disk before volume.meta can be.
    await replaceFile(join(directory, metaFile(FIRST_HEAD)), formatLayerMeta(newHeadMeta(FIRST_HEAD, '')), 0o644, disk)
    await replaceFile(join(directory, VOLUME_META), formatVolumeMeta(newVolumeMeta(sizeBytes, FIRST_HEAD)), 0o644, disk)
  } catch (error) {
    throw ioFailure(`creating a replica of ${sizeBytes} bytes in ${directory}`, error)
  }
}

/** True when everything here comes from a creation that did not reach its end, so that nothing is lost by starting over. */
async function isEmptyOrUnfinished(directory: string, entries: readonly string[]): Promise<boolean> {
  const ours = new Set([FIRST_HEAD, metaFile(FIRST_HEAD), REVISION_COUNTER, VOLUME_META, MEMBERSHIP_FILE])
  if (!entries.every(file => ours.has(file) || isTemporaryName(file))) return false
  if ((await readVolumeMeta(directory)) !== undefined) return false
  if (!entries.includes(FIRST_HEAD)) return true
  // Every block counts: a head that was ever written to belongs to a replica that lost its volume.meta.
  return (await stat(join(directory, FIRST_HEAD))).blocks === 0
}

async function checkExisting(directory: string, sizeBytes: number): Promise<void> {
  const {volume} = await readReplicaDirectory(directory).catch((error: unknown) => {
    if (!(error instanceof LonghornError) || error.code !== 'LH_NOT_FOUND') throw error
    const message = `${directory} is not empty and does not hold a replica: choose another directory, or empty this one`
    throw new LonghornError('CONFLICT', message, {directory}, {cause: error})
  })
  if (volume.sizeBytes === sizeBytes) return
  const message = `${directory} holds a replica of ${volume.sizeBytes} bytes, not of ${sizeBytes}: expand the volume, or choose another directory`
  throw new LonghornError('CONFLICT', message, {directory, sizeBytes: volume.sizeBytes})
}
