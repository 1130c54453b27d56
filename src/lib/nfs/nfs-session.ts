import {constants} from 'node:fs'
import {bufferAddress} from '../sys/buffer-address.js'
import {copyFrom, readEntry, readStatus, type NfsEntry, type NfsStatus} from './libnfs.js'
import {NfsConnection, NfsError, type NfsTarget} from './nfs-connection.js'

/** Bytes of a read or write; servers take at least as much, most take more. */
const PIECE_BYTES = 512 * 1024
/** Pieces of one file that are on their way at once, and bytes in them. */
const MAX_PIECES = 128
const WINDOW_BYTES = 2 * 1024 ** 2

const {O_EXCL, O_WRONLY} = constants

/** What is done with the files of an export, over one connection. Failures are those of the connection, or an NfsError. */
export class NfsSession {
  readonly #connection: NfsConnection

  private constructor(connection: NfsConnection) {
    this.#connection = connection
  }

  /** As NfsConnection.mount(). */
  static async mount(target: NfsTarget, signal?: AbortSignal): Promise<NfsSession> {
    return new NfsSession(await NfsConnection.mount(target, signal))
  }

  /** Whether calls can be made. */
  get isUsable(): boolean {
    return this.#connection.isUsable
  }

  /** Ends the connection now; what is under way fails with `reason`. Safe twice, the first reason counts. */
  destroy(reason: unknown): void {
    this.#connection.destroy(reason)
  }

  stat(path: string): Promise<NfsStatus> {
    const {stat, callback} = this.#connection.library
    return this.#connection.call(`looking at ${path}`, token => stat(this.#connection.context, path, callback, token), (_status, data) => readStatus(data))
  }

  /** The entries of a directory, without itself and its parent. */
  entries(path: string): Promise<NfsEntry[]> {
    const {openDirectory, callback} = this.#connection.library
    return this.#connection.call(`listing ${path}`, token => openDirectory(this.#connection.context, path, callback, token), (_status, directory) => this.#readEntries(directory))
  }

  async mkdir(path: string, mode: number): Promise<void> {
    const {mkdir, callback} = this.#connection.library
    await this.#connection.call(`making the directory ${path}`, token => mkdir(this.#connection.context, path, mode, callback, token), () => undefined)
  }

  async rmdir(path: string): Promise<void> {
    const {rmdir, callback} = this.#connection.library
    await this.#connection.call(`removing the directory ${path}`, token => rmdir(this.#connection.context, path, callback, token), () => undefined)
  }

  async unlink(path: string): Promise<void> {
    const {unlink, callback} = this.#connection.library
    await this.#connection.call(`removing ${path}`, token => unlink(this.#connection.context, path, callback, token), () => undefined)
  }

  /** Servers have done this durably when they answer, as all changes of directories (RFC 1813, 4.8). */
  async rename(from: string, to: string): Promise<void> {
    const {rename, callback} = this.#connection.library
    await this.#connection.call(`renaming ${from}`, token => rename(this.#connection.context, from, to, callback, token), () => undefined)
  }

  /** Makes a file that must not be there, with this content. Durable when it resolves. `check` is called between pieces and may throw. */
  async writeFile(path: string, data: Uint8Array, mode: number, check: () => void): Promise<void> {
    const {create, fsync, ftruncate, callback} = this.#connection.library
    const file = await this.#connection.call(`making ${path}`, token => create(this.#connection.context, path, O_WRONLY | O_EXCL, mode, callback, token), (_status, data) => data)
    await this.#closing(file, path, async () => {
      await inPieces(data.length, this.#writeBytes(), async (offset, length) => {
        check()
        await this.#write(file, path, data, offset, length)
      })
      // Where a file is made exclusively, servers may keep a number of theirs in its times until something is written.
      if (data.length === 0) await this.#connection.call(`setting the size of ${path}`, token => ftruncate(this.#connection.context, file, 0, callback, token), () => undefined)
      await this.#connection.call(`syncing ${path}`, token => fsync(this.#connection.context, file, callback, token), () => undefined)
    })
  }

  /** The content of a file; `admit` is told its size first and may throw. */
  async readFile(path: string, admit: (sizeBytes: number) => void, check: () => void): Promise<Buffer> {
    const {open, fstat, callback} = this.#connection.library
    const file = await this.#connection.call(`opening ${path}`, token => open(this.#connection.context, path, 0, callback, token), (_status, data) => data)
    return await this.#closing(file, path, async () => {
      const {sizeBytes} = await this.#connection.call(`looking at ${path}`, token => fstat(this.#connection.context, file, callback, token), (_status, data) => readStatus(data))
      admit(sizeBytes)
      const content = Buffer.allocUnsafeSlow(sizeBytes)
      await inPieces(sizeBytes, this.#readBytes(), async (offset, length) => {
        check()
        await this.#read(file, path, content, offset, length)
      })
      return content
    })
  }

  #readBytes(): number {
    // Told for version 3 only; servers of version 4 answer with less where it is too much.
    return Math.min(PIECE_BYTES, this.#connection.maxBytes.read || PIECE_BYTES)
  }

  #writeBytes(): number {
    const {library, target, maxBytes} = this.#connection
    return Math.min(PIECE_BYTES, (target.version === 4 ? library.version4WriteBytes : maxBytes.write) || PIECE_BYTES)
  }

  async #write(file: number, path: string, data: Uint8Array, from: number, length: number): Promise<void> {
    const {pwrite, callback} = this.#connection.library
    for (let done = 0; done < length; ) {
      const offset = from + done
      const address = bufferAddress(data, offset)
      const written = await this.#connection.call(`writing ${path}`, token => pwrite(this.#connection.context, file, offset, length - done, address, callback, token), status => status)
      if (written <= 0 || written > length - done) throw new NfsError('IO', `writing ${path}: the server took ${written} of ${length - done} bytes`)
      done += written
    }
  }

  async #read(file: number, path: string, target: Buffer, from: number, length: number): Promise<void> {
    const {pread, callback} = this.#connection.library
    for (let done = 0; done < length; ) {
      const offset = from + done
      const room = target.subarray(offset, from + length)
      const got = await this.#connection.call(`reading ${path}`, token => pread(this.#connection.context, file, offset, room.length, callback, token), (status, data) => {
        if (status > 0 && status <= room.length) copyFrom(data, room, status)
        return status
      })
      if (got <= 0 || got > room.length) throw new NfsError('IO', `reading ${path}: the file ends at ${offset}, before its size`)
      done += got
    }
  }

  /** Does something with an open file and closes it. A close that fails is a failure of what was done, which may not be there. */
  async #closing<T>(file: number, path: string, use: () => Promise<T>): Promise<T> {
    const {close, callback} = this.#connection.library
    const closed = (): Promise<void> => this.#connection.call(`closing ${path}`, token => close(this.#connection.context, file, callback, token), () => undefined)
    let result: T
    try {
      result = await use()
    } catch (error) {
      // What went wrong first is what is told; without its connection there is nothing to close.
      if (this.isUsable) await closed().catch(() => undefined)
      throw error
    }
    await closed()
    return result
  }

  #readEntries(directory: number): NfsEntry[] {
    const {readDirectory, closeDirectory} = this.#connection.library
    const entries: NfsEntry[] = []
    for (let at = readDirectory(this.#connection.context, directory); at !== 0; at = readDirectory(this.#connection.context, directory)) {
      const entry = readEntry(at)
      if (entry.name !== '.' && entry.name !== '..') entries.push(entry)
    }
    closeDirectory(this.#connection.context, directory)
    return entries
  }
}

/** Calls `each` for all pieces of something, a few at a time, and waits for all of them also when one fails. */
async function inPieces(length: number, pieceBytes: number, each: (offset: number, length: number) => Promise<void>): Promise<void> {
  let next = 0
  let failure: {readonly error: unknown} | undefined
  const worker = async (): Promise<void> => {
    while (next < length && failure === undefined) {
      const offset = next
      next += pieceBytes
      try {
        await each(offset, Math.min(pieceBytes, length - offset))
      } catch (error) {
        failure ??= {error}
      }
    }
  }
  const atOnce = Math.min(MAX_PIECES, Math.floor(WINDOW_BYTES / pieceBytes), Math.ceil(length / pieceBytes))
  await Promise.all(Array.from({length: atOnce}, worker))
  if (failure !== undefined) throw failure.error
}
