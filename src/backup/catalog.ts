// What is in a store: volumes, their backups, and the records of both.
import {isKind, LonghornError} from '../lib/errors.js'
import {blockBytesOf, isFinished, MAX_BACKUP_RECORD_BYTES, type BackupRecord} from './format/backup-record.js'
import {readBackupRecord} from './format/long-record.js'
import {missingKey} from './block-sealing.js'
import {parseBlockForm, type BlockForm} from './format/block-form.js'
import {backupKey, backupNameOf, backupsFolder, volumeFolder, volumeKey, VOLUMES} from './format/store-layout.js'
import {MAX_VOLUME_RECORD_BYTES, parseVolumeRecord, type VolumeRecord} from './format/volume-record.js'
import type {BackupStore} from './store/backup-store.js'
import {inParallel} from './parallel.js'
import {isName} from './target-url.js'

/** Listings of a store at once: each is a round trip. */
const LISTINGS = 16

/** A backup that is finished, with what is needed to read it. */
export interface ReadableBackup {
  readonly record: BackupRecord
  readonly volume: VolumeRecord
  readonly form: BlockForm
  readonly blockBytes: number
}

/** The names of the volumes in a store, sorted. What lies there under names that no volume can have, such as `lost+found`, is passed over. */
export async function listVolumes(store: BackupStore, signal?: AbortSignal): Promise<string[]> {
  const volumes: string[] = []
  const second: string[] = []
  const {folders} = await store.children(VOLUMES, signal)
  await inParallel(folders.filter(isHashPart), LISTINGS, async (first, signal) => {
    const below = await store.children(`${VOLUMES}${first}/`, signal)
    second.push(...below.folders.filter(isHashPart).map(name => `${VOLUMES}${first}/${name}/`))
  }, signal)
  await inParallel(second, LISTINGS, async (folder, signal) => {
    const below = await store.children(folder, signal)
    volumes.push(...below.folders.filter(name => isName(name) && volumeFolder(name) === `${folder}${name}/`))
  }, signal)
  return volumes.sort()
}

/** The names of the backups of a volume, finished or not, sorted; none for a volume that is not there. */
export async function listBackups(store: BackupStore, volume: string, signal?: AbortSignal): Promise<string[]> {
  const {objects} = await store.children(backupsFolder(volume), signal)
  return objects.map(({key}) => backupNameOf(key)).filter(name => name !== undefined).sort()
}

/** NOT_FOUND, CORRUPT. */
export async function loadVolume(store: BackupStore, volume: string, signal?: AbortSignal): Promise<VolumeRecord> {
  const key = volumeKey(volume)
  return parseVolumeRecord((await store.get(key, MAX_VOLUME_RECORD_BYTES, signal)).toString('utf8'), key)
}

/** The same, undefined when it certainly is not there. */
export async function findVolume(store: BackupStore, volume: string, signal?: AbortSignal): Promise<VolumeRecord | undefined> {
  return loadVolume(store, volume, signal).catch(undefinedWhenMissing)
}

/** The record of a backup, finished or not. NOT_FOUND, CORRUPT. */
export async function loadBackup(store: BackupStore, volume: string, backup: string, signal?: AbortSignal): Promise<BackupRecord> {
  const key = backupKey(volume, backup)
  return readBackupRecord(await store.get(key, MAX_BACKUP_RECORD_BYTES, signal), key)
}

/** The same, undefined when it certainly is not there. */
export async function findBackup(store: BackupStore, volume: string, backup: string, signal?: AbortSignal): Promise<BackupRecord | undefined> {
  return loadBackup(store, volume, backup, signal).catch(undefinedWhenMissing)
}

/** A backup to be read. As describeBackup(); USAGE when it is encrypted and the store was opened without its key. */
export async function openBackup(store: BackupStore, volumeName: string, backup: string, signal?: AbortSignal): Promise<ReadableBackup> {
  const opened = await describeBackup(store, volumeName, backup, signal)
  const {keyId} = opened.form
  if (keyId !== undefined && store.keys?.find(keyId) === undefined) throw missingKey(store, keyId, volumeName)
  return opened
}

/** A backup of which no block need be read, which takes no key. NOT_FOUND; BUSY for one that is not finished; UNSUPPORTED for one in a format that we do not read. */
export async function describeBackup(store: BackupStore, volumeName: string, backup: string, signal?: AbortSignal): Promise<ReadableBackup> {
  const record = await loadBackup(store, volumeName, backup, signal)
  const key = backupKey(volumeName, backup)
  if (!isFinished(record)) throw new LonghornError('BUSY', `backup ${backup} is still in progress, or it failed: there is nothing to read`, {backup})
  if (record.singleFile !== '') throw new LonghornError('UNSUPPORTED', `${key} is a whole file and not blocks, as versions before 0.1 of upstream wrote it`)
  const volume = await loadVolume(store, volumeName, signal)
  const blockBytes = blockBytesOf(record, key)
  const end = (record.blocks.at(-1)?.offset ?? -blockBytes) + blockBytes
  if (end - volume.sizeBytes >= blockBytes) {
    throw new LonghornError('CORRUPT', `${key} has a block that ends at ${end}, past the end of the volume of ${volume.sizeBytes} bytes: the records are damaged`)
  }
  return {record, volume, form: parseBlockForm(record.compressionMethod, key), blockBytes}
}

function isHashPart(name: string): boolean {
  return /^[0-9a-f]{2}$/.test(name)
}

function undefinedWhenMissing(error: unknown): undefined {
  if (!isKind(error, 'NOT_FOUND')) throw error
}
