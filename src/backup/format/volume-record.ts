import {JsonFields} from './json-fields.js'

/** `volume.cfg`: what is known of a volume in a store (reference backupstore-format 2.2). */
export interface VolumeRecord {
  readonly name: string
  /** At the last backup that was finished. */
  readonly sizeBytes: number
  /** Those of the last backup that was finished. */
  readonly labels: Readonly<Record<string, string>> | null
  readonly createdTime: string
  /** What the next backup can be based on, '' for nothing. */
  readonly lastBackupName: string
  readonly lastBackupAt: string
  readonly blockCount: number
  readonly backingImageName: string
  readonly backingImageChecksum: string
  /** Of all backups of the volume; '' in records from before there was a choice, which means gzip. */
  readonly compressionMethod: string
  readonly storageClassName: string
  readonly dataEngine: string
}

export const MAX_VOLUME_RECORD_BYTES = 16 * 1024 ** 2

/** Reads volume.cfg. `key` is for errors. Throws CORRUPT. */
export function parseVolumeRecord(text: string, key: string): VolumeRecord {
  const fields = new JsonFields(text, key)
  return {
    name: fields.text('Name'),
    sizeBytes: fields.integer('Size'),
    labels: fields.texts('Labels'),
    createdTime: fields.text('CreatedTime'),
    lastBackupName: fields.text('LastBackupName'),
    lastBackupAt: fields.text('LastBackupAt'),
    blockCount: fields.integer('BlockCount'),
    backingImageName: fields.quoted('BackingImageName'),
    backingImageChecksum: fields.quoted('BackingImageChecksum'),
    compressionMethod: fields.quoted('CompressionMethod'),
    storageClassName: fields.quoted('StorageClassName'),
    dataEngine: fields.quoted('DataEngine'),
  }
}

/** One line without an end, with the fields in upstream's order. */
export function formatVolumeRecord(record: VolumeRecord): string {
  return JSON.stringify({
    Name: record.name,
    Size: String(record.sizeBytes),
    Labels: record.labels,
    CreatedTime: record.createdTime,
    LastBackupName: record.lastBackupName,
    LastBackupAt: record.lastBackupAt,
    BlockCount: String(record.blockCount),
    BackingImageName: JSON.stringify(record.backingImageName),
    BackingImageChecksum: JSON.stringify(record.backingImageChecksum),
    CompressionMethod: JSON.stringify(record.compressionMethod),
    StorageClassName: JSON.stringify(record.storageClassName),
    DataEngine: JSON.stringify(record.dataEngine),
  })
}
