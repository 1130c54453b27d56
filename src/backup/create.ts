import {randomBytes} from 'node:crypto'
import {Cleanup} from '../lib/cleanup.js'
import {LonghornError} from '../lib/errors.js'
import type {BlockSource, Range} from './block-source.js'
import {BlockUploader} from './block-uploader.js'
import {findBackup} from './catalog.js'
import {blockBytesOf, DEFAULT_BLOCK_BYTES, formatBackupRecord, isFinished, LARGE_BLOCK_BYTES, MAX_BLOCKS, parametersOf, unfinishedRecord, type BackupBlock, type BackupRecord} from './format/backup-record.js'
import {writeBackupRecord} from './format/long-record.js'
import {formatBlockForm, keyIdOf, parseBlockForm} from './format/block-form.js'
import {recordTime} from './format/json-fields.js'
import {backupKey} from './format/store-layout.js'
import {inParallel} from './parallel.js'
import {LOCK, StoreLock, type LockOptions} from './store-lock.js'
import type {BackupStore} from './store/backup-store.js'
import {backupUrl, checkName} from './target-url.js'
import {ProgressCounter, type OnProgress, type TransferProgress} from './transfer-progress.js'
import {removeUnfinished, VolumeWriter} from './volume-writer.js'

/** What blocks that are being worked on may take together, in bytes: raw, hashed and compressed. */
const MEMORY_BYTES = 60 * 1024 ** 2

export interface CreateOptions extends LockOptions {
  readonly volume: string
  readonly snapshot: string
  /** Made up when it is left out. */
  readonly backup?: string | undefined
  readonly labels?: Readonly<Record<string, string>> | null
  /** Of the first backup of a volume; later ones keep it. lz4 by default. With a key in it (format/block-form.ts) that one must be the store's; without one, the store's keys decide. */
  readonly compressionMethod?: string | undefined
  /** 2 MiB by default, or 16 MiB. */
  readonly blockBytes?: number | undefined
  /** Blocks at once; fewer where they would take too much memory. */
  readonly concurrency: number
  /** Read everything and store it again, also what is there: what may be damaged in the store becomes whole. */
  readonly full?: boolean
  /** Refuse (BUSY) while another backup of the volume that was begun with this runs. */
  readonly exclusive?: boolean
  readonly backingImage?: {readonly name: string; readonly checksum: string}
  readonly storageClassName?: string
  readonly onProgress?: OnProgress | undefined
}

export interface Created {
  readonly backup: string
  readonly url: string
  readonly isIncremental: boolean
  readonly newBytes: number
  readonly progress: TransferProgress
}

/** A backup that has begun: the lock is held and the base is chosen. */
export interface StartedBackup {
  readonly name: string
  readonly isIncremental: boolean
  /** Does it. Resolves when the backup is listed and durable; rejects when there is none. To be called once. */
  run(): Promise<Created>
  /** Gives up before run() was called. Safe twice. */
  close(): Promise<void>
}

interface Base {
  readonly blocks: readonly BackupBlock[]
  readonly changed: Iterable<Range>
}

/** Makes a backup; see startBackup(). */
export async function createBackup(source: BlockSource, store: BackupStore, options: CreateOptions): Promise<Created> {
  return (await startBackup(source, store, options)).run()
}

/**
 * Begins a backup of `source`: only what was written since the last backup's snapshot is read, where there is that backup, with blocks of the same size, and its
 * snapshot is still below. Blocks that the store has are not sent again, so one that was broken off goes on where it was. While it runs there
 * is a record without a time, which is no backup; a failure removes that record.
 *
 * BUSY while somebody deletes from the volume; CONFLICT when there is a backup of that name; UNSUPPORTED, CORRUPT and what the store throws.
 */
export async function startBackup(source: BlockSource, store: BackupStore, options: CreateOptions): Promise<StartedBackup> {
  const {volume, signal, blockBytes = DEFAULT_BLOCK_BYTES} = options
  const name = checkName(options.backup ?? `backup-${randomBytes(8).toString('hex')}`, 'backup')
  checkName(volume, 'volume')
  if (blockBytes !== DEFAULT_BLOCK_BYTES && blockBytes !== LARGE_BLOCK_BYTES) throw new LonghornError('USAGE', `blocks of ${blockBytes} bytes: a backup has blocks of 2 MiB or 16 MiB`)
  checkForm(store, options.compressionMethod)
  await using undo = new Cleanup()
  const lock = await takeLocks(store, options, undo)
  const requestedAt = recordTime(new Date())
  const there = await findBackup(store, volume, name, signal)
  if (there !== undefined && isFinished(there)) throw new LonghornError('CONFLICT', `volume ${volume} has a backup ${name} in ${store.url} already: choose another name`)
  const writer = await VolumeWriter.open(store, freshVolume(source, options), signal)
  const base = options.full === true ? undefined : await findBase(source, store, writer, options, blockBytes)
  const owned = undo.move()
  const run = async (): Promise<Created> => {
    await using _owned = owned
    return await new Run(source, store, options, {name, requestedAt, blockBytes, writer, base, lock}).run()
  }
  return {name, isIncremental: base !== undefined, run, close: () => owned.close()}
}

interface Plan {
  readonly name: string
  readonly requestedAt: string
  readonly blockBytes: number
  readonly writer: VolumeWriter
  readonly base: Base | undefined
  readonly lock: StoreLock
}

/** The part that takes long. */
class Run {
  constructor(
    readonly source: BlockSource,
    readonly store: BackupStore,
    readonly options: CreateOptions,
    readonly plan: Plan,
  ) {}

  async run(): Promise<Created> {
    const {store, options} = this
    const {name, writer} = this.plan
    const key = backupKey(options.volume, name)
    await store.put(key, Buffer.from(formatBackupRecord(unfinishedRecord(name, options.volume, formatBlockForm(writer.form)))), options.signal)
    try {
      return await this.#upload(key)
    } catch (error) {
      await removeUnfinished(store, key)
      throw error
    }
  }

  async #upload(key: string): Promise<Created> {
    const {source, store, options} = this
    const {name, base, writer, blockBytes, lock} = this.plan
    const offsets = blockOffsets(base?.changed ?? source.allocated(), blockBytes)
    checkCount(base?.blocks ?? [], offsets, blockBytes)
    const present = await writer.presentBlocks(blockBytes, offsets.length, options.signal)
    const uploader = new BlockUploader({source, store, volume: options.volume, sealing: await writer.sealing(), blockBytes, present, full: options.full === true})
    const counter = new ProgressCounter(offsets.length, options.onProgress)
    const changed: BackupBlock[] = Array.from(offsets, offset => ({offset, sum: ''}))
    const limit = Math.max(1, Math.min(options.concurrency, Math.floor(MEMORY_BYTES / (3 * blockBytes))))
    await inParallel(offsets.entries(), limit, async ([index, offset], signal) => {
      lock.checkHeld()
      const {sum, newBytes} = await uploader.upload(offset, signal)
      changed[index] = {offset, sum}
      counter.add(1, blockBytes, newBytes)
    }, options.signal)
    const blocks = mergeBlocks(base?.blocks ?? [], changed)
    const record: BackupRecord = {
      ...unfinishedRecord(name, options.volume, formatBlockForm(writer.form)),
      snapshotName: options.snapshot,
      snapshotCreatedAt: this.plan.requestedAt,
      createdTime: recordTime(new Date()),
      sizeBytes: blocks.length * blockBytes,
      labels: options.labels ?? null,
      parameters: parametersOf(blockBytes, options.full === true),
      isIncremental: base !== undefined,
      newBytes: uploader.newBytes,
      reuploadedBytes: uploader.reuploadedBytes,
      blocks,
    }
    lock.checkHeld()
    await store.put(key, await writeBackupRecord(record), options.signal)
    await writer.finish(record, source.sizeBytes, uploader.newBlocks, options.signal)
    return {backup: name, url: backupUrl(store.url, options.volume, name), isIncremental: base !== undefined, newBytes: uploader.newBytes, progress: counter.progress}
  }
}

/** Both locks at once, as each takes two seconds. They belong to `undo`, also when only one of them is to be had. */
async function takeLocks(store: BackupStore, options: CreateOptions, undo: Cleanup): Promise<StoreLock> {
  const types = options.exclusive === true ? [LOCK.ONE_BACKUP, LOCK.CREATE_OR_RESTORE] : [LOCK.CREATE_OR_RESTORE]
  const taken = await Promise.allSettled(types.map(async type => undo.add(await StoreLock.take(store, options.volume, type, options))))
  // That somebody else backs the volume up says more than that somebody deletes from it.
  for (const result of taken) if (result.status === 'rejected') throw result.reason
  return (taken.at(-1) as PromiseFulfilledResult<StoreLock>).value
}

/** What the last backup has, and what was written since; undefined where everything has to be looked at. */
async function findBase(source: BlockSource, store: BackupStore, {volume, form}: VolumeWriter, options: CreateOptions, blockBytes: number): Promise<Base | undefined> {
  if (volume.lastBackupName === '') return undefined
  const last = await findBackup(store, volume.name, volume.lastBackupName, options.signal)
  if (last === undefined || !isFinished(last) || last.snapshotName === '' || last.snapshotName === options.snapshot) return undefined
  if (last.singleFile !== '' || blockBytesOf(last, backupKey(volume.name, last.name)) !== blockBytes) return undefined
  // Its blocks would be encrypted with another key, or not at all, and a backup has one for all of them.
  if (keyIdOf(last.compressionMethod) !== form.keyId) return undefined
  const changed = source.changedSince({name: last.snapshotName, backedUpAt: last.snapshotCreatedAt})
  return changed === undefined ? undefined : {blocks: last.blocks, changed}
}

/** Whoever asks for encryption must not get anything else, and whoever does not say gets what the keys say. */
function checkForm(store: BackupStore, asked = 'lz4'): void {
  const {keyId} = parseBlockForm(asked, 'the request')
  if (keyId === undefined || keyId === store.keys?.current.id) return
  throw new LonghornError('USAGE', `the backup is to be encrypted with the key ${keyId}, which is not the one that this process writes with`, {keyId})
}

function freshVolume(source: BlockSource, options: CreateOptions) {
  return {
    name: options.volume,
    sizeBytes: source.sizeBytes,
    labels: null,
    createdTime: '',
    lastBackupName: '',
    lastBackupAt: '',
    blockCount: 0,
    backingImageName: options.backingImage?.name ?? '',
    backingImageChecksum: options.backingImage?.checksum ?? '',
    compressionMethod: options.compressionMethod ?? 'lz4',
    storageClassName: options.storageClassName ?? '',
    dataEngine: '',
  }
}

/** Where the blocks begin that have something of `ranges` in them, each once, in order. */
function blockOffsets(ranges: Iterable<Range>, blockBytes: number): number[] {
  const offsets: number[] = []
  for (const {offset, length} of ranges) {
    const first = Math.floor(offset / blockBytes) * blockBytes
    for (let at = Math.max(first, (offsets.at(-1) ?? -blockBytes) + blockBytes); at < offset + length; at += blockBytes) offsets.push(at)
  }
  return offsets
}

/** Before anything is sent of what could not be listed in the end. */
function checkCount(base: readonly BackupBlock[], offsets: readonly number[], blockBytes: number): void {
  if (base.length + offsets.length <= MAX_BLOCKS) return
  const known = new Set(base.map(({offset}) => offset))
  const count = offsets.reduce((count, offset) => count + (known.has(offset) ? 0 : 1), known.size)
  if (count <= MAX_BLOCKS) return
  const way = blockBytes < LARGE_BLOCK_BYTES ? ': choose blocks of 16 MiB (--block-size 16)' : ''
  throw new LonghornError('UNSUPPORTED', `the backup would have ${count} blocks of ${blockBytes / 1024 ** 2} MiB, and one can have ${MAX_BLOCKS}${way}`)
}

/** The base's blocks with those that changed in their places. Both are sorted by offset, and so is the result. */
function mergeBlocks(base: readonly BackupBlock[], changed: readonly BackupBlock[]): BackupBlock[] {
  const blocks: BackupBlock[] = []
  let at = 0
  for (const block of changed) {
    for (; at < base.length && base[at]!.offset < block.offset; at++) blocks.push(base[at]!)
    if (base[at]?.offset === block.offset) at++
    blocks.push(block)
  }
  for (; at < base.length; at++) blocks.push(base[at]!)
  return blocks
}
