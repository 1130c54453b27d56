import {LonghornError} from '../../lib/errors.js'
import {BlockList} from './block-list.js'
import {JsonFields} from './json-fields.js'
import {parseQuantity} from './quantity.js'

export const DEFAULT_BLOCK_BYTES = 2 * 1024 ** 2
export const LARGE_BLOCK_BYTES = 16 * 1024 ** 2
const MAX_BLOCK_BYTES = 64 * 1024 ** 2
const MODE = 'backup-mode'
const BLOCK_SIZE = 'backup-block-size'

/** One block of a backup: where in the volume, and the sum that names its object. */
export interface BackupBlock {
  readonly offset: number
  readonly sum: string
}

/** `backup_NAME.cfg`: one backup, with all its blocks (reference backupstore-format 2.3). */
export interface BackupRecord {
  readonly name: string
  readonly volumeName: string
  readonly snapshotName: string
  /** When the backup was asked for. */
  readonly snapshotCreatedAt: string
  /** When it was finished; '' while it is not. */
  readonly createdTime: string
  /** Number of blocks times their size. */
  readonly sizeBytes: number
  readonly labels: Readonly<Record<string, string>> | null
  readonly parameters: Readonly<Record<string, string>> | null
  readonly isIncremental: boolean
  /** '' means gzip. */
  readonly compressionMethod: string
  readonly newBytes: number
  readonly reuploadedBytes: number
  /** Sorted by offset. */
  readonly blocks: readonly BackupBlock[]
  /** Of a legacy backup, which is one file; '' otherwise. */
  readonly singleFile: string
}

/** A full TiB in blocks of 2 MiB takes 56 MB. What JavaScript can hold as one text is about 512 MiB. */
export const MAX_BACKUP_RECORD_BYTES = 480 * 1024 ** 2

/** How many blocks a record can list: as text each takes up to `{"Offset":9007199254740991,"BlockChecksum":"…64…"},`; the rest has its share. */
export const MAX_BLOCKS = Math.floor((MAX_BACKUP_RECORD_BYTES - 2 * 1024 ** 2) / 112)

/** Reads the record of a backup. `key` is for errors. Throws CORRUPT. */
export function parseBackupRecord(text: string, key: string): BackupRecord {
  const fields = new JsonFields(text, key)
  const list = new BlockList(fields, blockBytesOf({parameters: fields.texts('Parameters')}, key))
  list.add(fields.value('Blocks') ?? [])
  return recordWith(fields, list.end())
}

/** The record of which everything but the blocks is in `fields`. */
export function recordWith(fields: JsonFields, blocks: readonly BackupBlock[]): BackupRecord {
  const single = fields.value('SingleFile')
  const singleFile = typeof single === 'object' && single !== null && 'FilePath' in single && typeof single.FilePath === 'string' ? single.FilePath : ''
  return {
    name: fields.text('Name'),
    volumeName: fields.text('VolumeName'),
    snapshotName: fields.text('SnapshotName'),
    snapshotCreatedAt: fields.text('SnapshotCreatedAt'),
    createdTime: fields.text('CreatedTime'),
    sizeBytes: fields.integer('Size'),
    labels: fields.texts('Labels'),
    parameters: fields.texts('Parameters'),
    isIncremental: fields.boolean('IsIncremental'),
    compressionMethod: fields.text('CompressionMethod'),
    newBytes: fields.integer('NewlyUploadedDataSize'),
    reuploadedBytes: fields.integer('ReUploadedDataSize'),
    blocks,
    singleFile,
  }
}

/** One line without an end, with the fields in upstream's order. */
export function formatBackupRecord(record: BackupRecord): string {
  return JSON.stringify({
    Name: record.name,
    VolumeName: record.volumeName,
    SnapshotName: record.snapshotName,
    SnapshotCreatedAt: record.snapshotCreatedAt,
    CreatedTime: record.createdTime,
    Size: String(record.sizeBytes),
    Labels: record.labels,
    Parameters: record.parameters,
    IsIncremental: record.isIncremental,
    CompressionMethod: record.compressionMethod,
    NewlyUploadedDataSize: String(record.newBytes),
    ReUploadedDataSize: String(record.reuploadedBytes),
    ProcessingBlocks: null,
    ...(record.blocks.length === 0 ? {} : {Blocks: record.blocks.map(({offset, sum}) => ({Offset: offset, BlockChecksum: sum}))}),
    SingleFile: {FilePath: record.singleFile},
  })
}

/** The record as it is while the backup runs: without CreatedTime it is no backup yet, and keeps all blocks from being removed. */
export function unfinishedRecord(name: string, volumeName: string, compressionMethod: string): BackupRecord {
  return {
    name,
    volumeName,
    snapshotName: '',
    snapshotCreatedAt: '',
    createdTime: '',
    sizeBytes: 0,
    labels: null,
    parameters: null,
    isIncremental: false,
    compressionMethod,
    newBytes: 0,
    reuploadedBytes: 0,
    blocks: [],
    singleFile: '',
  }
}

/** Whether the backup was finished. One that was not is running, or has failed: the record does not tell. */
export function isFinished({createdTime}: Pick<BackupRecord, 'createdTime'>): boolean {
  return createdTime !== ''
}

/** Size of the blocks of a backup, in bytes. Throws CORRUPT for one that cannot be. */
export function blockBytesOf({parameters}: Pick<BackupRecord, 'parameters'>, where: string): number {
  const text = parameters?.[BLOCK_SIZE] ?? ''
  const bytes = text === '' ? 0 : parseQuantity(text)
  if (bytes === 0) return DEFAULT_BLOCK_BYTES
  if (bytes !== undefined && bytes % 4096 === 0 && bytes <= MAX_BLOCK_BYTES) return bytes
  throw new LonghornError('CORRUPT', `${where}: blocks of "${text}": expected a multiple of 4096 bytes, at most ${MAX_BLOCK_BYTES}`, {key: where})
}

/** What a backup with these properties records as its parameters. */
export function parametersOf(blockBytes: number, full: boolean): Record<string, string> {
  return {[BLOCK_SIZE]: String(blockBytes), ...(full ? {[MODE]: 'full'} : {})}
}

/** Whether the parameters of a request ask for everything to be stored anew. */
export function wantsFull(parameters: ReadonlyMap<string, string>): boolean {
  return parameters.get(MODE) === 'full'
}
