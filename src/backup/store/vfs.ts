import {randomBytes} from 'node:crypto'
import type {Dirent} from 'node:fs'
import {mkdir, open, readdir, rename, rm, rmdir, stat, unlink, type FileHandle} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import {errnoOf, LonghornError, messageOf} from '../../lib/errors.js'
import type {BackupKeys} from '../encryption/backup-keys.js'
import {cannotFind, checkFolder, checkKey, tooLarge, type BackupStore, type Folder, type StoredObject} from './backup-store.js'

/** How often a directory may vanish under a write: whoever removes the last object of one removes it as well. */
const ATTEMPTS = 8

/** Read at once of a large object, so that an interrupt need not wait for all of it. */
const READ_BYTES = 16 * 1024 ** 2

/**
 * A store in a directory of this machine: `vfs:///path`. Objects are files and folders are directories, as upstream has them, so what
 * upstream wrote there is read, and the other way round.
 *
 * An object is written under another name, synced, and renamed; then its directory is synced. A crash leaves at most `NAME.tmp.…`, which
 * is no name of the format and is removed with the next clean-up of that volume.
 */
export class VfsStore implements BackupStore {
  keys: BackupKeys | undefined
  /** Directories that are known to survive a power cut, or are being made to. */
  readonly #directories = new Map<string, Promise<void>>()

  /** `root` is an absolute path; it need not exist. */
  constructor(
    readonly root: string,
    readonly url: string,
  ) {}

  async *list(folder: string, signal?: AbortSignal): AsyncIterable<StoredObject> {
    const pending = [folder]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const {folders, objects} = await this.children(next, signal)
      for (const name of folders) pending.push(`${next}${name}/`)
      yield* objects
    }
  }

  async children(folder: string, signal?: AbortSignal): Promise<Folder> {
    checkFolder(folder)
    signal?.throwIfAborted()
    const entries = await this.#entries(folder)
    const folders = entries.filter(entry => entry.isDirectory()).map(({name}) => name)
    const objects: StoredObject[] = []
    for (const {name} of entries.filter(entry => entry.isFile())) {
      // It may have gone since the directory was read.
      const object = await this.head(`${folder}${name}`, signal)
      if (object !== undefined) objects.push(object)
    }
    return {folders: folders.sort(), objects}
  }

  async head(key: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    signal?.throwIfAborted()
    try {
      const status = await stat(this.#path(key))
      return status.isFile() ? {key, sizeBytes: status.size, modifiedMs: status.mtimeMs} : undefined
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw this.#failure(`looking for ${key}`, error)
    }
  }

  async get(key: string, maxBytes: number, signal?: AbortSignal, room?: Buffer): Promise<Buffer> {
    signal?.throwIfAborted()
    try {
      await using file = await open(this.#path(key), 'r')
      const {size} = await file.stat()
      if (size > maxBytes) throw tooLarge(key, this.url, size, maxBytes)
      return await readWhole(file, room !== undefined && room.length >= size ? room.subarray(0, size) : Buffer.allocUnsafeSlow(size), signal)
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') throw cannotFind(key, this.url, error)
      throw this.#failure(`reading ${key}`, error)
    }
  }

  async put(key: string, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    const path = this.#path(key)
    const temporary = `${path}.tmp.${process.pid}${randomBytes(6).toString('hex')}`
    try {
      await this.#create(temporary, data, signal)
      await rename(temporary, path)
      await syncDirectory(dirname(path))
    } catch (error) {
      await rm(temporary, {force: true}).catch(() => undefined)
      throw this.#failure(`writing ${key}`, error)
    }
  }

  async remove(key: string, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    const path = this.#path(key)
    try {
      await unlink(path)
      // A record that a power cut brings back, after its blocks went, would be a backup that cannot be restored.
      await syncDirectory(dirname(path))
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw this.#failure(`removing ${key}`, error)
    }
    await this.#removeEmpty(dirname(key))
  }

  async close(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #create(temporary: string, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      signal?.throwIfAborted()
      try {
        await this.#makeDirectory(dirname(temporary))
        await using file = await open(temporary, 'wx', 0o600)
        await file.writeFile(data)
        await file.sync()
        return
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT' || attempt === ATTEMPTS) throw error
        for (let path = dirname(temporary); path.length > this.root.length; path = dirname(path)) this.#directories.delete(path)
      }
    }
  }

  /** Makes a directory and its parents, and their names durable: also those that another process has just made. */
  #makeDirectory(path: string): Promise<void> {
    const known = this.#directories.get(path)
    if (known !== undefined) return known
    const made = this.#makeDurable(path)
    this.#directories.set(path, made)
    made.catch(() => this.#directories.delete(path))
    return made
  }

  async #makeDurable(path: string): Promise<void> {
    const parent = dirname(path)
    if (parent === path) return
    if (path === this.root) {
      await mkdir(path, {recursive: true, mode: 0o700})
      return
    }
    await this.#makeDirectory(parent)
    await mkdir(path, {mode: 0o700}).catch((error: unknown) => {
      if (errnoOf(error) !== 'EEXIST') throw error
    })
    await syncDirectory(parent)
  }

  /** Removes directories that have become empty, up to the one that all keys share. */
  async #removeEmpty(folder: string): Promise<void> {
    for (let at = folder; at.includes('/'); at = dirname(at)) {
      const path = join(this.root, at)
      try {
        this.#directories.delete(path)
        await rmdir(path)
      } catch (error) {
        if (['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? '')) return
        if (errnoOf(error) !== 'ENOENT') throw this.#failure(`removing the empty directory ${at}`, error)
      }
    }
  }

  async #entries(folder: string): Promise<Dirent[]> {
    try {
      return await readdir(this.#path(folder.slice(0, -1)), {withFileTypes: true})
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return []
      throw this.#failure(`listing ${folder}`, error)
    }
  }

  #path(key: string): string {
    checkKey(key)
    return join(this.root, key)
  }

  #failure(doing: string, error: unknown): unknown {
    const errno = errnoOf(error)
    if (error instanceof LonghornError || errno === undefined || errno === 'ABORT_ERR') return error
    const kind = errno === 'ENOSPC' || errno === 'EDQUOT' ? 'NO_SPACE' : 'IO'
    return new LonghornError(kind, `backup store ${this.url}: ${doing}: ${messageOf(error)}`, {}, {cause: error})
  }
}

/** Fills `into`. An object never changes under its name, so that its size when it was opened is what there is to read; less is told by what it holds. */
async function readWhole(file: FileHandle, into: Buffer, signal?: AbortSignal): Promise<Buffer> {
  let done = 0
  for (let read = 1; done < into.length && read > 0; done += read) {
    signal?.throwIfAborted()
    read = (await file.read(into, done, Math.min(into.length - done, READ_BYTES), done)).bytesRead
  }
  return into.subarray(0, done)
}

async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r')
  await directory.sync()
}
