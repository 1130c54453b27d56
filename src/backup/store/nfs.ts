import {randomBytes} from 'node:crypto'
import {posix} from 'node:path'
import {LonghornError} from '../../lib/errors.js'
import {NfsError, type NfsTarget} from '../../lib/nfs/nfs-connection.js'
import type {NfsSession} from '../../lib/nfs/nfs-session.js'
import type {BackupKeys} from '../encryption/backup-keys.js'
import {cannotFind, checkFolder, checkKey, tooLarge, type BackupStore, type Folder, type StoredObject} from './backup-store.js'
import {NfsSessions} from './nfs-sessions.js'

/** How often a directory may vanish under a write, or a file be replaced under a read. */
const ATTEMPTS = 8
/** Listings of directories at once. */
const LISTINGS = 8

/**
 * A directory of an NFS server, in user space: `nfs://SERVER:/PATH`. Files and directories are where VfsStore and upstream have them. An object is written under another name, synced (COMMIT) and renamed; changes
 * of directories are durable when the server answers.
 */
export class NfsStore implements BackupStore {
  keys: BackupKeys | undefined
  readonly #sessions: NfsSessions
  /** Directories that are known to be there. */
  readonly #directories = new Map<string, Promise<void>>()

  private constructor(
    readonly url: string,
    sessions: NfsSessions,
  ) {
    this.#sessions = sessions
  }

  /** Connects to the server. UNREACHABLE, TIMEOUT; USAGE when it refuses; UNSUPPORTED without libnfs. */
  static async open(url: string, target: NfsTarget): Promise<NfsStore> {
    const sessions = new NfsSessions(target, url)
    try {
      await sessions.probe()
    } catch (error) {
      sessions.close()
      throw error
    }
    return new NfsStore(url, sessions)
  }

  async *list(folder: string, signal?: AbortSignal): AsyncIterable<StoredObject> {
    checkFolder(folder)
    const pending = [folder]
    const running: Promise<{from: string; found: Folder}>[] = []
    try {
      for (;;) {
        for (let next; running.length < LISTINGS && (next = pending.pop()) !== undefined; ) {
          const from = next
          const listing = this.children(from, signal).then(found => ({from, found}))
          // It may fail while an earlier one is awaited; what it failed with is thrown when its turn comes.
          listing.catch(() => undefined)
          running.push(listing)
        }
        const first = running.shift()
        if (first === undefined) return
        const {from, found} = await first
        for (const name of found.folders) pending.push(`${from}${name}/`)
        yield* found.objects
      }
    } finally {
      // The first failure is thrown; the others, and what nobody wants any more, end by themselves.
      await Promise.allSettled(running)
    }
  }

  async children(folder: string, signal?: AbortSignal): Promise<Folder> {
    checkFolder(folder)
    const path = pathOf(folder.slice(0, -1))
    const entries = await this.#run(`listing ${folder}`, session => session.entries(path).catch(unlessMissing), signal)
    const folders: string[] = []
    const objects: StoredObject[] = []
    for (const {name, isDirectory, isFile, sizeBytes, modifiedMs} of entries ?? []) {
      if (isDirectory) folders.push(name)
      else if (isFile) objects.push({key: `${folder}${name}`, sizeBytes, modifiedMs})
    }
    return {folders: folders.sort(), objects}
  }

  async head(key: string, signal?: AbortSignal): Promise<StoredObject | undefined> {
    checkKey(key)
    const status = await this.#run(`looking for ${key}`, session => session.stat(pathOf(key)).catch(unlessMissing), signal)
    return status?.isFile === true ? {key, sizeBytes: status.sizeBytes, modifiedMs: status.modifiedMs} : undefined
  }

  async get(key: string, maxBytes: number, signal?: AbortSignal): Promise<Buffer> {
    checkKey(key)
    const admit = (sizeBytes: number): void => {
      if (sizeBytes > maxBytes) throw tooLarge(key, this.url, sizeBytes, maxBytes)
    }
    return this.#run(`reading ${key}`, async session => {
      for (let attempt = 1; ; attempt++) {
        try {
          return await session.readFile(pathOf(key), admit, () => signal?.throwIfAborted())
        } catch (error) {
          if (isStatus(error, 'NOENT')) throw cannotFind(key, this.url, error)
          // Replaced while it was read: version 3 knows of no open files.
          if (!isStatus(error, 'STALE') || attempt === ATTEMPTS) throw error
        }
      }
    }, signal)
  }

  async put(key: string, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkKey(key)
    const path = pathOf(key)
    // What earlier attempts have left, where the connection was lost. If it is never back: a removal takes it after a day.
    const left = new Set<string>()
    const removeLeft = async (session: NfsSession): Promise<void> => {
      for (const name of left) if (session.isUsable) await session.unlink(name).catch(() => undefined)
    }
    await this.#run(`writing ${key}`, async session => {
      const temporary = `${path}.tmp.${process.pid}${randomBytes(6).toString('hex')}`
      left.add(temporary)
      try {
        await this.#create(session, temporary, data, signal)
        await session.rename(temporary, path)
        left.delete(temporary)
      } finally {
        await removeLeft(session)
      }
    }, signal)
  }

  async remove(key: string, signal?: AbortSignal): Promise<void> {
    checkKey(key)
    await this.#run(`removing ${key}`, async session => {
      await session.unlink(pathOf(key)).catch(unlessMissing)
      await this.#removeEmpty(session, posix.dirname(key))
    }, signal)
  }

  async close(): Promise<void> {
    this.#sessions.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #create(session: NfsSession, temporary: string, data: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      signal?.throwIfAborted()
      try {
        await this.#makeDirectory(session, posix.dirname(temporary))
        await session.writeFile(temporary, data, 0o600, () => signal?.throwIfAborted())
        return
      } catch (error) {
        // Whoever removes the last object of a directory removes it as well.
        if (!(isStatus(error, 'NOENT') || isStatus(error, 'STALE')) || attempt === ATTEMPTS) throw error
        for (let path = posix.dirname(temporary); path !== '/'; path = posix.dirname(path)) this.#directories.delete(path)
      }
    }
  }

  #makeDirectory(session: NfsSession, path: string): Promise<void> {
    if (path === '/') return Promise.resolve()
    const known = this.#directories.get(path)
    if (known !== undefined) return known
    const made = this.#makeWithParents(session, path)
    this.#directories.set(path, made)
    made.catch(() => this.#directories.delete(path))
    return made
  }

  async #makeWithParents(session: NfsSession, path: string): Promise<void> {
    await this.#makeDirectory(session, posix.dirname(path))
    await session.mkdir(path, 0o700).catch((error: unknown) => {
      if (!isStatus(error, 'EXIST')) throw error
    })
  }

  /** Removes directories that have become empty, up to the one that all keys share. */
  async #removeEmpty(session: NfsSession, folder: string): Promise<void> {
    for (let at = folder; at.includes('/'); at = posix.dirname(at)) {
      this.#directories.delete(pathOf(at))
      try {
        await session.rmdir(pathOf(at))
      } catch (error) {
        if (isStatus(error, 'NOTEMPTY') || isStatus(error, 'EXIST')) return
        if (!isStatus(error, 'NOENT')) throw error
      }
    }
  }

  async #run<T>(doing: string, use: (session: NfsSession) => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await this.#sessions.run(use, signal)
    } catch (error) {
      if (!(error instanceof NfsError)) throw error
      const kind = ['NOSPC', 'DQUOT'].includes(error.status) ? 'NO_SPACE' : 'IO'
      throw new LonghornError(kind, `backup store ${this.url}: ${doing}: ${error.message}`, {status: error.status}, {cause: error})
    }
  }
}

function pathOf(key: string): string {
  return `/${key}`
}

function isStatus(error: unknown, status: string): boolean {
  return error instanceof NfsError && error.status === status
}

/** NOENT is the server's word and nothing else: what libnfs makes of other failures has other names. */
function unlessMissing(error: unknown): undefined {
  if (!isStatus(error, 'NOENT')) throw error
}
