import {randomBytes} from 'node:crypto'
import {setTimeout as delay} from 'node:timers/promises'
import {isKind, LonghornError, messageOf} from '../lib/errors.js'
import {locksFolder, oneBackupFolder} from './format/store-layout.js'
import type {BackupStore, StoredObject} from './store/backup-store.js'

/** What a lock is for. Those of upstream's types (1, 2) can be had together by any number with the same one. */
export const LOCK = {
  CREATE_OR_RESTORE: 1,
  DELETE: 2,
  /** Ours, in a folder that upstream does not look into: one backup of a volume at a time, for those who ask for that. */
  ONE_BACKUP: 1000,
} as const
export type LockType = (typeof LOCK)[keyof typeof LOCK]

/** Since the file was last written: then nobody counts it any more. */
const VALID_MS = 150_000
const REFRESH_MS = 60_000
/** A holder that could not refresh for this long stops, before others may take its lock for dead. */
const TRUST_MS = 120_000
const SETTLE_MS = 2000
const MAX_LOCK_BYTES = 64 * 1024

export interface LockOptions {
  /** Between writing the lock and judging it: 2 s, as upstream's. */
  readonly settleMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

interface FoundLock {
  readonly key: string
  readonly name: string
  /** Undefined for a file that cannot be read: it counts as being of another type until it is too old. */
  readonly type: number | undefined
  readonly acquired: boolean
  readonly modifiedMs: number
}

/**
 * A lock on one volume of a store, in upstream's way (reference backupstore-format, section 4): a small file, written, judged 2 s later beside the
 * others, and written again every minute. Unlike upstream's, how old a file is is told by the store's clock alone, a listing that fails is a
 * refusal, and a holder whose refreshes fail finds out.
 */
export class StoreLock implements AsyncDisposable {
  #refreshing: Promise<void> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  /** When it was last written: of both clocks, as one stands still while the machine sleeps and the other one jumps. */
  #written = {steady: performance.now(), wall: Date.now()}
  #failure: unknown
  /** For good: what happened while it did not count, nobody knows. */
  #lost: LonghornError | undefined
  #closed: Promise<void> | undefined

  private constructor(
    readonly store: BackupStore,
    readonly folder: string,
    readonly name: string,
    readonly type: LockType,
  ) {}

  /** Takes the lock. BUSY when one of the other type is there; everything else that fails is a refusal as well. */
  static async take(store: BackupStore, volume: string, type: LockType, {settleMs = SETTLE_MS, signal}: LockOptions = {}): Promise<StoreLock> {
    const folder = type === LOCK.ONE_BACKUP ? oneBackupFolder(volume) : locksFolder(volume)
    const lock = new StoreLock(store, folder, `lock-${randomBytes(8).toString('hex')}`, type)
    try {
      await lock.#write(false, signal)
      await delay(settleMs, undefined, {signal}).catch(() => signal?.throwIfAborted())
      await lock.#judge(volume, signal)
      await lock.#write(true, signal)
    } catch (error) {
      await lock.close()
      throw error
    }
    lock.#timer = setInterval(() => lock.#refresh(), REFRESH_MS).unref()
    return lock
  }

  /** Throws BUSY when others may take this lock for dead. To be called before anything that relies on it. */
  checkHeld(): void {
    const age = Math.max(performance.now() - this.#written.steady, Date.now() - this.#written.wall)
    if (this.#lost === undefined && age >= TRUST_MS) this.#lost = this.#loss(age)
    if (this.#lost !== undefined) throw this.#lost
  }

  #loss(age: number): LonghornError {
    const why = this.#failure === undefined ? 'this process stood still' : messageOf(this.#failure)
    return new LonghornError('BUSY', `the lock ${this.#key} was not kept up for ${Math.round(age / 1000)} s (${why}): try again`, {}, {cause: this.#failure})
  }

  /** Whether somebody else holds a lock of this type that counts. */
  async isShared(signal?: AbortSignal): Promise<boolean> {
    const {own, others} = await this.#read(signal)
    return others.some(other => other.type === this.type && !isExpired(other, own))
  }

  /** When it was last written, by the store's clock: at most a minute ago. Milliseconds since 1970. */
  async writtenAt(signal?: AbortSignal): Promise<number> {
    return (await this.#read(signal)).own.modifiedMs
  }

  /** Gives it back. Where the store does not take it, it expires: that is no reason to call what was done failed, nor to hide what did fail. Safe twice. */
  close(): Promise<void> {
    return (this.#closed ??= this.#giveBack().catch(() => undefined))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  get #key(): string {
    return `${this.folder}${this.name}.lck`
  }

  async #giveBack(): Promise<void> {
    clearInterval(this.#timer)
    await this.#refreshing
    await this.store.remove(this.#key)
  }

  #refresh(): void {
    this.#refreshing = this.#refreshing
      .then(() => {
        this.checkHeld()
        return this.#write(true)
      })
      .then(
        () => (this.#failure = undefined),
        (error: unknown) => (this.#failure = error),
      )
      .then(() => undefined)
  }

  async #write(acquired: boolean, signal?: AbortSignal): Promise<void> {
    const written = {steady: performance.now(), wall: Date.now()}
    await this.store.put(this.#key, Buffer.from(JSON.stringify({Name: this.name, Type: this.type, Acquired: acquired})), signal)
    this.#written = written
  }

  async #judge(volume: string, signal?: AbortSignal): Promise<void> {
    const {own, others} = await this.#read(signal)
    const before = others.find(other => (other.type !== this.type || this.type === LOCK.ONE_BACKUP) && !isExpired(other, own) && precedes(other, own))
    if (before === undefined) return
    if (this.type === LOCK.ONE_BACKUP) {
      throw new LonghornError('BUSY', `volume ${volume} is being backed up to ${this.store.url} already; a run that was killed counts for ${VALID_MS / 1000} s more`, {lock: before.key})
    }
    const doing = this.type === LOCK.DELETE ? 'delete' : 'create/restore'
    throw new LonghornError('BUSY', `failed to acquire lock ${this.#key} when performing backup ${doing}, please try again later: ${before.key} of volume ${volume} is held`, {lock: before.key})
  }

  /** All locks of the volume; `own` as the store has it, which also tells the store's time. */
  async #read(signal?: AbortSignal): Promise<{own: FoundLock; others: FoundLock[]}> {
    const {objects} = await this.store.children(this.folder, signal)
    const files = objects.filter(({key}) => key.endsWith('.lck'))
    const locks = await Promise.all(files.map(file => readLock(this.store, file, signal)))
    const found = locks.filter(lock => lock !== undefined)
    const own = found.find(({name, key}) => name === this.name && key === this.#key)
    if (own === undefined) throw new LonghornError('BUSY', `the lock ${this.#key} is gone: the store lost it, or somebody removed it`)
    return {own, others: found.filter(lock => lock !== own)}
  }
}

async function readLock(store: BackupStore, {key, modifiedMs}: StoredObject, signal?: AbortSignal): Promise<FoundLock | undefined> {
  const name = key.slice(key.lastIndexOf('/') + 1, -'.lck'.length)
  try {
    const {Type: type, Acquired: acquired} = Object(JSON.parse((await store.get(key, MAX_LOCK_BYTES, signal)).toString('utf8'))) as Record<string, unknown>
    return {key, name, type: typeof type === 'number' ? type : undefined, acquired: acquired === true, modifiedMs}
  } catch (error) {
    if (isKind(error, 'NOT_FOUND')) return undefined
    if (error instanceof SyntaxError || isKind(error, 'CORRUPT')) return {key, name, type: undefined, acquired: true, modifiedMs}
    throw error
  }
}

/** By the store's clock: `own` was written a moment ago, or is refreshed. */
function isExpired(lock: FoundLock, own: FoundLock): boolean {
  return own.modifiedMs - lock.modifiedMs > VALID_MS
}

function precedes(a: FoundLock, b: FoundLock): boolean {
  if (a.acquired !== b.acquired) return a.acquired
  if (a.modifiedMs !== b.modifiedMs) return a.modifiedMs < b.modifiedMs
  return a.name < b.name
}
