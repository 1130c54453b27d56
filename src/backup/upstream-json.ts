// What upstream's backup commands print of a store (reference backupstore-format, sections 5.3 and 5.4).
import {describeBackup, listBackups, loadVolume} from './catalog.js'
import {DEFAULT_BLOCK_BYTES} from './format/backup-record.js'
import {recordTime} from './format/json-fields.js'
import {backupKey, volumeKey} from './format/store-layout.js'
import {cannotFind, type BackupStore} from './store/backup-store.js'
import {backupUrl} from './target-url.js'

const EMPTY_BACKUP = {Name: '', URL: '', SnapshotName: '', SnapshotCreated: '', Created: '', Size: '0', Labels: null, Parameters: null, IsIncremental: false, NewlyUploadedDataSize: '0', ReUploadedDataSize: '0', Messages: null}

/** `ls`: of a volume only the names of its backups; the rest is asked for with `inspect`. A volume that cannot be read has a message. */
export async function listedVolume(store: BackupStore, volume: string, volumeOnly: boolean, signal?: AbortSignal): Promise<object> {
  const messages: Record<string, string> = {}
  let backups: string[] = []
  if ((await store.head(volumeKey(volume), signal)) === undefined) messages.error = `cannot find ${volumeKey(volume)} in backupstore`
  else if (!volumeOnly) backups = await listBackups(store, volume, signal)
  return {
    ...volumeFields({}),
    Messages: messages,
    ...(backups.length === 0 ? {} : {Backups: Object.fromEntries(backups.map(name => [name, EMPTY_BACKUP]))}),
    ...imageFields({}),
  }
}

/** `inspect-volume`. */
export async function inspectedVolume(store: BackupStore, volume: string, signal?: AbortSignal): Promise<object> {
  const record = await loadVolume(store, volume, signal)
  return {...volumeFields(record), Messages: {}, ...imageFields(record)}
}

/** `inspect` of a backup that is finished. */
export async function inspectedBackup(store: BackupStore, volume: string, backup: string, signal?: AbortSignal): Promise<object> {
  const {record, volume: of} = await describeBackup(store, volume, backup, signal)
  return {
    Name: record.name,
    URL: backupUrl(store.url, volume, backup),
    SnapshotName: record.snapshotName,
    SnapshotCreated: record.snapshotCreatedAt,
    Created: record.createdTime,
    Size: String(record.sizeBytes),
    Labels: record.labels,
    Parameters: record.parameters,
    IsIncremental: record.isIncremental,
    CompressionMethod: record.compressionMethod,
    NewlyUploadedDataSize: String(record.newBytes),
    ReUploadedDataSize: String(record.reuploadedBytes),
    VolumeName: of.name,
    VolumeSize: String(of.sizeBytes),
    VolumeCreated: of.createdTime,
    ...(of.backingImageName === '' ? {} : {VolumeBackingImageName: of.backingImageName}),
    Messages: null,
  }
}

/** `head`: when the record of a backup, or without one that of the volume, was written. */
export async function recordHead(store: BackupStore, volume: string, backup: string | undefined, signal?: AbortSignal): Promise<object> {
  const key = backup === undefined ? volumeKey(volume) : backupKey(volume, backup)
  const object = await store.head(key, signal)
  if (object === undefined) throw cannotFind(key, store.url)
  return {ModificationTime: recordTime(new Date(object.modifiedMs))}
}

type VolumeFields = Partial<Awaited<ReturnType<typeof loadVolume>>>

function volumeFields({name = '', sizeBytes = 0, labels = null, createdTime = '', lastBackupName = '', lastBackupAt = '', blockCount = 0}: VolumeFields): object {
  return {
    Name: name,
    Size: String(sizeBytes),
    Labels: labels,
    Created: createdTime,
    LastBackupName: lastBackupName,
    LastBackupAt: lastBackupAt,
    // Always in blocks of 2 MiB, as upstream has it.
    DataStored: String(blockCount * DEFAULT_BLOCK_BYTES),
  }
}

function imageFields({backingImageName = '', backingImageChecksum = '', storageClassName = '', dataEngine = ''}: VolumeFields): object {
  return {BackingImageName: backingImageName, BackingImageChecksum: backingImageChecksum, StorageClassname: storageClassName, DataEngine: dataEngine}
}
