import {LonghornError} from '../../lib/errors.js'
import type {BackupKeys} from '../encryption/backup-keys.js'

/** One object of a store, as its listing tells it. */
export interface StoredObject {
  readonly key: string
  readonly sizeBytes: number
  /** When it was last written, by the store's own clock, in milliseconds since 1970. S3 knows whole seconds only. */
  readonly modifiedMs: number
}

/** What lies directly in a folder. */
export interface Folder {
  /** Names of the folders in it, without slashes, sorted. */
  readonly folders: readonly string[]
  readonly objects: readonly StoredObject[]
}

/**
 * Where backups are kept: objects under keys such as `backupstore/volumes/65/40/vol/volume.cfg`. test/backup/store/store-contract.ts holds
 * what every store promises.
 *
 * A failure is never taken for an absence: what is not there is NOT_FOUND or undefined, and everything else is an error (IO, NO_SPACE,
 * UNREACHABLE, TIMEOUT, USAGE for refused credentials). Deleting depends on that.
 */
export interface BackupStore extends AsyncDisposable {
  /** As it is printed and reported: with the options of its driver, without secrets and selectors. */
  readonly url: string
  /** Of encrypted volumes, as far as whoever opened the store has them; the first one encrypts new backups. */
  keys?: BackupKeys | undefined
  /** All objects below a folder (`…/`), at any depth, in no particular order. A folder that is not there is empty. */
  list(folder: string, signal?: AbortSignal): AsyncIterable<StoredObject>
  /** What lies directly in a folder (`…/`). A folder that is not there is empty. */
  children(folder: string, signal?: AbortSignal): Promise<Folder>
  /** Undefined only when it certainly is not there. */
  head(key: string, signal?: AbortSignal): Promise<StoredObject | undefined>
  /** All of an object; in `room`, where that has `maxBytes` and the store can use it. NOT_FOUND; CORRUPT when it has more than `maxBytes`, without reading them. */
  get(key: string, maxBytes: number, signal?: AbortSignal, room?: Buffer): Promise<Buffer>
  /** Writes or replaces an object: readers see the old or the new one, whole. Durable when it resolves. `data` is not changed meanwhile. */
  put(key: string, data: Uint8Array, signal?: AbortSignal): Promise<void>
  /** Removes an object, durably. One that is not there is no error. */
  remove(key: string, signal?: AbortSignal): Promise<void>
  /** Safe twice. */
  close(): Promise<void>
}

const MAX_KEY_BYTES = 1024

/** Throws for a key that no store may be asked for. Names from outside are checked before they become keys: see target-url.ts. */
export function checkKey(key: string): void {
  const wrong = key.split('/').some(part => part === '' || part === '.' || part === '..' || part.includes('\0'))
  if (wrong || Buffer.byteLength(key) > MAX_KEY_BYTES) throw new RangeError(`"${key}" is not a key of a backup store`)
}

/** The same for a folder, which ends in a slash. */
export function checkFolder(folder: string): void {
  if (!folder.endsWith('/')) throw new RangeError(`"${folder}" is not a folder of a backup store`)
  checkKey(folder.slice(0, -1))
}

/** The error for what is not there. Upstream's manager looks for "cannot find". */
export function cannotFind(key: string, store: string, cause?: unknown): LonghornError {
  return new LonghornError('NOT_FOUND', `cannot find ${key} in backupstore ${store}`, {key}, {cause})
}

/** The error for an object that is larger than anything that belongs under its key. */
export function tooLarge(key: string, store: string, sizeBytes: number, maxBytes: number): LonghornError {
  return new LonghornError('CORRUPT', `${key} in ${store} has ${sizeBytes} bytes, more than the ${maxBytes} that can be right: it is damaged or not ours`, {key})
}
