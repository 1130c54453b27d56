import {isKind, messageOf} from '../lib/errors.js'
import {findVolume, listBackups, loadBackup} from './catalog.js'
import {isFinished, type BackupRecord} from './format/backup-record.js'
import {backupKey, backupNameOf, backupsFolder, blocksFolder, blockSumOf, isLeftover, volumeFolder, volumeKey} from './format/store-layout.js'
import {formatVolumeRecord, type VolumeRecord} from './format/volume-record.js'
import {inParallel} from './parallel.js'
import {LOCK, StoreLock, type LockOptions} from './store-lock.js'
import type {BackupStore, StoredObject} from './store/backup-store.js'

const CONCURRENCY = 16
/** An unfinished backup whose record is older, where nobody holds a lock, has failed. A lock lives 150 s. */
const DEAD_AFTER_MS = 3_600_000
/** What an interrupted write or a process that died with its lock has left goes after this time. */
const LEFTOVER_AFTER_MS = 86_400_000

export interface RemoveOptions extends LockOptions {
  readonly volume: string
  /** Backups to remove; none: only what nothing refers to. */
  readonly backups: readonly string[]
}

export interface Removed {
  /** Records that were there and are gone. */
  readonly backups: readonly string[]
  /** Unfinished backups of which nobody runs any more, which are gone too. */
  readonly dead: readonly string[]
  readonly blocks: number
  readonly bytes: number
  /** Why no blocks were removed; undefined when they were. */
  readonly blocksKept: string | undefined
}

/**
 * Removes backups, and the blocks that no backup of the volume has any more. The records go first. Blocks stay, with the reason in the answer, when it
 * is not certain what they are needed for: an unfinished backup, a record that cannot be read, a set of backups that changed meanwhile.
 * The next removal takes them. A store that fails to answer is an error, and nothing is removed after it.
 *
 * BUSY while the volume is being backed up or restored, by us or by upstream. Removing what is not there is no error.
 */
export async function removeBackups(store: BackupStore, options: RemoveOptions): Promise<Removed> {
  const {volume, backups, signal} = options
  await using lock = await StoreLock.take(store, volume, LOCK.DELETE, options)
  const before = new Set(await listBackups(store, volume, signal))
  const removed = backups.filter(name => before.has(name))
  for (const name of removed) await store.remove(backupKey(volume, name), signal)
  const record = await findVolume(store, volume, signal)
  if (record === undefined) return {backups: removed, dead: [], blocks: 0, bytes: 0, blocksKept: `there is no ${volumeKey(volume)}`}
  const sweep = new Sweep(store, volume, lock, signal)
  const dead = await sweep.removeDead()
  const uses = await sweep.mark()
  const wasLast = record.lastBackupName !== '' && !uses.known.has(record.lastBackupName)
  const rebased = wasLast ? {...record, ...baseOf(uses.newest)} : record
  if (uses.doubt !== undefined) {
    if (wasLast) await save(store, {...record, lastBackupName: '', lastBackupAt: ''}, signal)
    return {backups: removed, dead, blocks: 0, bytes: 0, blocksKept: uses.doubt}
  }
  if (wasLast) await save(store, rebased, signal)
  const {blocks, bytes, blocksKept} = await sweep.sweep(uses)
  if (blocksKept === undefined && rebased.blockCount !== uses.sums.size) await save(store, {...rebased, blockCount: uses.sums.size}, signal)
  return {backups: removed, dead, blocks, bytes, blocksKept}
}

/** Removes a volume with everything that belongs to it. BUSY as removeBackups(). One that is not there is no error. */
export async function removeVolume(store: BackupStore, volume: string, options: LockOptions = {}): Promise<number> {
  const {signal} = options
  await using lock = await StoreLock.take(store, volume, LOCK.DELETE, options)
  let objects = 0
  const now = await lock.writtenAt(signal)
  // Records first, so that what is left after an interruption is no backup. Locks that count stay.
  for (const folder of [backupsFolder(volume), blocksFolder(volume), volumeFolder(volume)]) {
    await inParallel(store.list(folder, signal), CONCURRENCY, async ({key, modifiedMs}, signal) => {
      if (key.endsWith('.lck') && now - modifiedMs < DEAD_AFTER_MS) return
      lock.checkHeld()
      await store.remove(key, signal)
      objects++
    }, signal)
  }
  return objects
}

interface Uses {
  /** Blocks that a backup has. */
  readonly sums: ReadonlySet<string>
  readonly known: ReadonlySet<string>
  readonly newest: BackupRecord | undefined
  /** Why that may not be all. */
  readonly doubt: string | undefined
  /** The records as they were listed, to see whether they change. */
  readonly listing: string
}

/** One clean-up of a volume: what is needed, and what is not. */
class Sweep {
  constructor(
    readonly store: BackupStore,
    readonly volume: string,
    readonly lock: StoreLock,
    readonly signal: AbortSignal | undefined,
  ) {}

  /** Removes the records of backups that have failed: they would keep everything for ever. */
  async removeDead(): Promise<string[]> {
    const now = await this.#storeTime()
    const dead: string[] = []
    for (const {key, modifiedMs} of (await this.#records()).filter(({modifiedMs}) => now - modifiedMs > DEAD_AFTER_MS)) {
      const name = backupNameOf(key)!
      const record = await loadBackup(this.store, this.volume, name, this.signal).catch(doubtful)
      if (record === undefined || isFinished(record) || now - modifiedMs <= DEAD_AFTER_MS) continue
      this.lock.checkHeld()
      await this.store.remove(key, this.signal)
      dead.push(name)
    }
    return dead
  }

  /** Reads all records, one at a time: each can have tens of megabytes. */
  async mark(): Promise<Uses> {
    const records = await this.#records()
    const sums = new Set<string>()
    const known = new Set<string>()
    let newest: BackupRecord | undefined
    let doubt: string | undefined
    for (const {key} of records) {
      const name = backupNameOf(key)!
      known.add(name)
      try {
        const record = await loadBackup(this.store, this.volume, name, this.signal)
        if (!isFinished(record)) doubt = `backup ${name} is still in progress, or failed less than an hour ago`
        for (const {sum} of record.blocks) sums.add(sum)
        if (isFinished(record) && (newest === undefined || record.snapshotCreatedAt > newest.snapshotCreatedAt)) newest = record
      } catch (error) {
        doubt = `the record of backup ${name} cannot be read: ${messageOf(doubtfulText(error))}`
      }
    }
    return {sums, known, newest, doubt, listing: fingerprint(records)}
  }

  /** Removes the blocks that nothing uses. */
  async sweep({sums, listing}: Uses): Promise<{blocks: number; bytes: number; blocksKept: string | undefined}> {
    const {store, volume, signal, lock} = this
    const unused: StoredObject[] = []
    const now = await this.#storeTime()
    for await (const object of store.list(volumeFolder(volume), signal)) {
      const sum = blockSumOf(volume, object.key)
      const old = now - object.modifiedMs > LEFTOVER_AFTER_MS
      if (sum === undefined ? old && (isLeftover(object.key) || object.key.endsWith('.lck')) : !sums.has(sum)) unused.push(object)
    }
    if (fingerprint(await this.#records()) !== listing) return {blocks: 0, bytes: 0, blocksKept: 'the backups of the volume changed meanwhile'}
    let blocks = 0
    let bytes = 0
    await inParallel(unused, CONCURRENCY, async ({key, sizeBytes}, signal) => {
      // A process that stood still may have lost its lock, and a backup may be counting on this very block by now.
      lock.checkHeld()
      await store.remove(key, signal)
      if (blockSumOf(volume, key) !== undefined) blocks++
      bytes += sizeBytes
    }, signal)
    return {blocks, bytes, blocksKept: undefined}
  }

  async #records(): Promise<StoredObject[]> {
    const {objects} = await this.store.children(backupsFolder(this.volume), this.signal)
    return objects.filter(({key}) => backupNameOf(key) !== undefined)
  }

  /** By the store's clock: when our own lock was written, which is at most a minute ago. */
  #storeTime(): Promise<number> {
    return this.lock.writtenAt(this.signal)
  }
}

function fingerprint(records: readonly StoredObject[]): string {
  return records.map(({key, modifiedMs, sizeBytes}) => `${key} ${modifiedMs} ${sizeBytes}`).sort().join('\n')
}

function baseOf(newest: BackupRecord | undefined): Pick<VolumeRecord, 'lastBackupName' | 'lastBackupAt'> {
  return {lastBackupName: newest?.name ?? '', lastBackupAt: newest?.snapshotCreatedAt ?? ''}
}

async function save(store: BackupStore, record: VolumeRecord, signal?: AbortSignal): Promise<void> {
  await store.put(volumeKey(record.name), Buffer.from(formatVolumeRecord(record)), signal)
}

/** A damaged record, or one that has just gone, keeps the blocks; a store that fails ends everything. */
function doubtfulText(error: unknown): unknown {
  if (isKind(error, 'CORRUPT') || isKind(error, 'NOT_FOUND')) return error
  throw error
}

function doubtful(error: unknown): undefined {
  doubtfulText(error)
}
