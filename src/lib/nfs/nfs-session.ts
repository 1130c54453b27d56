import {randomBytes} from 'node:crypto'
import {lookup} from 'node:dns/promises'
import {constants as fileConstants} from 'node:fs'
import {constants, hostname} from 'node:os'
import koffi, {type node} from 'koffi'
import {asError, errnoOf, LonghornError, messageOf} from '../errors.js'
import {controlEpoll, createEpoll, EPOLLIN, EPOLLOUT} from '../net/epoll.js'
import {closeFd} from '../net/socket-calls.js'
import {bufferAddress} from '../sys/buffer-address.js'
import {copyFrom, forgetAnswer, loadLibnfs, onAnswer, POLLIN, POLLOUT, readEntry, readStatus, readyEvents, type Libnfs, type NfsEntry, type NfsStatus} from './libnfs.js'

/** Bytes of a read or write; servers take at least as much, most take more. */
const PIECE_BYTES = 512 * 1024
/** Pieces of one file that are on their way at once, and bytes in them. */
const MAX_PIECES = 128
const WINDOW_BYTES = 2 * 1024 ** 2
const SWEEP_MS = 500
const MOUNTING = 'mounting the export'

const {O_EXCL, O_WRONLY} = fileConstants

/** libnfs's own, for calls that ended because the connection did. */
const CONNECTION_LOST = new Set([-constants.errno.EFAULT, -constants.errno.EINTR])

export interface NfsTarget {
  /** Name or address. */
  readonly host: string
  /** What is mounted: an export, or for version 4 a directory in one. */
  readonly path: string
  readonly version: 3 | 4
  /** 2049 for version 4, and what the server's portmapper says for version 3, when they are left out. */
  readonly port?: number | undefined
  readonly mountPort?: number | undefined
  /** How long an answer may take before the server counts as gone. */
  readonly timeoutMs: number
}

/** The server's refusal of one call: `status` is `NOENT`, `NOSPC`, `GRACE`, … as in RFC 7530 without the prefix, or the errno of something that libnfs found out itself. */
export class NfsError extends Error {
  override readonly name = 'NfsError'

  constructor(
    readonly status: string,
    message: string,
  ) {
    super(message)
  }
}

interface Call {
  readonly startedMs: number
  fail(error: unknown): void
}

/**
 * A connection to an NFS server with one export mounted in it, through libnfs: in user space, so no right to mount is needed. Its descriptor is watched by Node's loop, and nothing here waits in a
 * thread. Calls may overlap, but not two that open or close files: version 4.0 numbers those, and servers refuse what overtakes.
 *
 * Whatever ends the connection ends the session: all calls fail with that (UNREACHABLE, TIMEOUT), now and later. It is never reconnected, so that nothing is written to a server that has forgotten
 * what came before.
 */
export class NfsSession {
  readonly #library: Libnfs
  readonly #context: number
  readonly #epoll: number
  readonly #watch: node.PollHandle
  readonly #calls = new Map<number, Call>()
  #sweep: NodeJS.Timeout | undefined
  #serving = false
  #failure: Error | undefined
  #destroyed = false

  private constructor(
    library: Libnfs,
    context: number,
    readonly target: NfsTarget,
  ) {
    this.#library = library
    this.#context = context
    // libnfs changes its descriptor while it mounts. An epoll descriptor of our own stays, and forgets what is closed.
    this.#epoll = createEpoll()
    this.#watch = koffi.node.poll(this.#epoll, {readable: true}, () => this.#service())
    this.#watch.unref()
  }

  /** Connects and mounts. UNREACHABLE, TIMEOUT; USAGE when the server refuses the export; UNSUPPORTED without libnfs. */
  static async mount(target: NfsTarget, signal?: AbortSignal): Promise<NfsSession> {
    const library = loadLibnfs()
    const {address} = await lookup(target.host).catch((error: unknown) => {
      throw new LonghornError('UNREACHABLE', `NFS server ${target.host} cannot be found: ${messageOf(error)}`, {}, {cause: error})
    })
    const context = library.init()
    if (context === 0) throw new LonghornError('IO', 'libnfs could not be started: out of memory')
    const session = new NfsSession(library, context, target)
    const onAbort = (): void => session.destroy(signal?.reason)
    signal?.addEventListener('abort', onAbort, {once: true})
    try {
      signal?.throwIfAborted()
      session.#configure()
      await session.#call(MOUNTING, token => library.mount(context, address, target.path, library.callback, token), () => undefined)
    } catch (error) {
      session.destroy(error)
      if (!(error instanceof NfsError)) throw error
      if (error.status === 'MINOR_VERS_MISMATCH') throw new LonghornError('UNSUPPORTED', `NFS server ${target.host} does not speak version 4.0, and nothing newer can be spoken without a mount: add nfsClient=kernel to the URL`, {}, {cause: error})
      throw new LonghornError('USAGE', `NFS server ${target.host} does not give ${target.path} to this client: ${error.message}`, {status: error.status}, {cause: error})
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
    return session
  }

  /** Whether calls can be made. */
  get isUsable(): boolean {
    return this.#failure === undefined
  }

  /** Ends the connection now; what is under way fails with `reason`. Safe twice, the first reason counts. */
  destroy(reason: unknown): void {
    this.#failure ??= asError(reason)
    clearInterval(this.#sweep)
    const calls = [...this.#calls]
    this.#calls.clear()
    for (const [token, call] of calls) {
      forgetAnswer(token)
      call.fail(this.#failure)
    }
    // Not under libnfs's feet.
    if (!this.#serving) this.#release()
  }

  stat(path: string): Promise<NfsStatus> {
    const {stat, callback} = this.#library
    return this.#call(`looking at ${path}`, token => stat(this.#context, path, callback, token), (_status, data) => readStatus(data))
  }

  /** The entries of a directory, without itself and its parent. */
  entries(path: string): Promise<NfsEntry[]> {
    const {openDirectory, callback} = this.#library
    return this.#call(`listing ${path}`, token => openDirectory(this.#context, path, callback, token), (_status, directory) => this.#readEntries(directory))
  }

  async mkdir(path: string, mode: number): Promise<void> {
    const {mkdir, callback} = this.#library
    await this.#call(`making the directory ${path}`, token => mkdir(this.#context, path, mode, callback, token), () => undefined)
  }

  async rmdir(path: string): Promise<void> {
    const {rmdir, callback} = this.#library
    await this.#call(`removing the directory ${path}`, token => rmdir(this.#context, path, callback, token), () => undefined)
  }

  async unlink(path: string): Promise<void> {
    const {unlink, callback} = this.#library
    await this.#call(`removing ${path}`, token => unlink(this.#context, path, callback, token), () => undefined)
  }

  /** Servers have done this durably when they answer, as all changes of directories (RFC 1813, 4.8). */
  async rename(from: string, to: string): Promise<void> {
    const {rename, callback} = this.#library
    await this.#call(`renaming ${from}`, token => rename(this.#context, from, to, callback, token), () => undefined)
  }

  /** Makes a file that must not be there, with this content. Durable when it resolves. `check` is called between pieces and may throw. */
  async writeFile(path: string, data: Uint8Array, mode: number, check: () => void): Promise<void> {
    const {create, fsync, ftruncate, callback} = this.#library
    const file = await this.#call(`making ${path}`, token => create(this.#context, path, O_WRONLY | O_EXCL, mode, callback, token), (_status, data) => data)
    await this.#closing(file, path, async () => {
      await inPieces(data.length, this.#writeBytes(), async (offset, length) => {
        check()
        await this.#write(file, path, data, offset, length)
      })
      // Where a file is made exclusively, servers may keep a number of theirs in its times until something is written.
      if (data.length === 0) await this.#call(`setting the size of ${path}`, token => ftruncate(this.#context, file, 0, callback, token), () => undefined)
      await this.#call(`syncing ${path}`, token => fsync(this.#context, file, callback, token), () => undefined)
    })
  }

  /** The content of a file; `admit` is told its size first and may throw. */
  async readFile(path: string, admit: (sizeBytes: number) => void, check: () => void): Promise<Buffer> {
    const {open, fstat, callback} = this.#library
    const file = await this.#call(`opening ${path}`, token => open(this.#context, path, 0, callback, token), (_status, data) => data)
    return await this.#closing(file, path, async () => {
      const {sizeBytes} = await this.#call(`looking at ${path}`, token => fstat(this.#context, file, callback, token), (_status, data) => readStatus(data))
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
    return Math.min(PIECE_BYTES, this.#library.readMax(this.#context) || PIECE_BYTES)
  }

  #writeBytes(): number {
    const {writeMax, version4WriteBytes} = this.#library
    return this.target.version === 4 ? Math.min(PIECE_BYTES, version4WriteBytes) : Math.min(PIECE_BYTES, writeMax(this.#context) || PIECE_BYTES)
  }

  async #write(file: number, path: string, data: Uint8Array, from: number, length: number): Promise<void> {
    const {pwrite, callback} = this.#library
    for (let done = 0; done < length; ) {
      const offset = from + done
      const address = bufferAddress(data, offset)
      const written = await this.#call(`writing ${path}`, token => pwrite(this.#context, file, offset, length - done, address, callback, token), status => status)
      if (written <= 0 || written > length - done) throw new NfsError('IO', `writing ${path}: the server took ${written} of ${length - done} bytes`)
      done += written
    }
  }

  async #read(file: number, path: string, target: Buffer, from: number, length: number): Promise<void> {
    const {pread, callback} = this.#library
    for (let done = 0; done < length; ) {
      const offset = from + done
      const room = target.subarray(offset, from + length)
      const got = await this.#call(`reading ${path}`, token => pread(this.#context, file, offset, room.length, callback, token), (status, data) => {
        if (status > 0 && status <= room.length) copyFrom(data, room, status)
        return status
      })
      if (got <= 0 || got > room.length) throw new NfsError('IO', `reading ${path}: the file ends at ${offset}, before its size`)
      done += got
    }
  }

  /** Does something with an open file and closes it. A close that fails is a failure of what was done, which may not be there. */
  async #closing<T>(file: number, path: string, use: () => Promise<T>): Promise<T> {
    const {close, callback} = this.#library
    const closed = (): Promise<void> => this.#call(`closing ${path}`, token => close(this.#context, file, callback, token), () => undefined)
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
    const {readDirectory, closeDirectory} = this.#library
    const entries: NfsEntry[] = []
    for (let at = readDirectory(this.#context, directory); at !== 0; at = readDirectory(this.#context, directory)) {
      const entry = readEntry(at)
      if (entry.name !== '.' && entry.name !== '..') entries.push(entry)
    }
    closeDirectory(this.#context, directory)
    return entries
  }

  #configure(): void {
    const {parseUrl, destroyUrl, setClientName, setVerifier} = this.#library
    const {version, port = version === 4 ? 2049 : undefined, mountPort} = this.target
    const settings = new URLSearchParams({version: String(version), autoreconnect: '0', dircache: '0'})
    if (port !== undefined) settings.set('nfsport', String(port))
    if (mountPort !== undefined) settings.set('mountport', String(mountPort))
    const url = parseUrl(this.#context, `nfs://server/path?${settings.toString()}`)
    if (url === 0) throw new LonghornError('UNSUPPORTED', `libnfs does not take the settings ${settings.toString()}: ${this.#library.getError(this.#context)}`)
    destroyUrl(url)
    // Two clients of one name would take each other's files away.
    setClientName(this.#context, `longhorn ${hostname().slice(0, 64)} ${process.pid} ${randomBytes(8).toString('hex')}`)
    setVerifier(this.#context, randomBytes(8))
  }

  /** Makes one call. `take` looks at its result at once: what `data` points at does not stay. */
  #call<T>(doing: string, begin: (token: number) => number, take: (status: number, data: number) => T): Promise<T> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      const token = onAnswer((status, data) => {
        this.#calls.delete(token)
        if (CONNECTION_LOST.has(status)) {
          this.#lose(doing)
          return reject(this.#failure!)
        }
        if (status < 0) return reject(this.#refusal(doing, status))
        try {
          resolve(take(status, data))
        } catch (error) {
          // Nothing may be thrown into libnfs.
          reject(asError(error))
        }
      })
      this.#calls.set(token, {startedMs: performance.now(), fail: reject})
      this.#sweep ??= setInterval(() => this.#endOverdue(), SWEEP_MS)
      this.#watch.ref()
      if (begin(token) < 0) {
        forgetAnswer(token)
        this.#calls.delete(token)
        reject(this.#refusal(doing, -constants.errno.EIO))
      }
      if (!this.#serving) this.#rearm()
    })
  }

  #refusal(doing: string, status: number): NfsError {
    const text = this.#library.getError(this.#context) ?? ''
    const code = /NFS[34]?ERR_([A-Z_]+)/.exec(text)?.[1]
    return new NfsError(code ?? `E${-status}`, `${doing}: ${code === undefined ? `${text || 'failed'} (${status})` : `the server says ${code}`}`)
  }

  #lose(doing: string): void {
    const text = this.#library.getError(this.#context) || 'the connection ended'
    const what = doing === MOUNTING ? 'cannot be reached' : `was lost while ${doing}`
    this.destroy(new LonghornError('UNREACHABLE', `NFS server ${this.target.host} ${what}: ${text}`))
  }

  /** Has libnfs send and receive what can be. Callbacks come in here. */
  #service(): void {
    const {getFd, whichEvents, service} = this.#library
    if (this.#destroyed) return
    const fd = getFd(this.#context)
    const events = fd < 0 ? 0 : readyEvents(fd, whichEvents(this.#context))
    this.#serving = true
    let result: number
    try {
      result = service(this.#context, events)
    } finally {
      this.#serving = false
    }
    if (result < 0 && this.#failure === undefined) this.#lose('waiting for answers')
    if (this.#failure !== undefined) return this.#release()
    this.#rearm()
  }

  /** Watches the descriptor that libnfs has now, for what it wants now. */
  #rearm(): void {
    if (this.#destroyed || this.#failure !== undefined) return
    const fd = this.#library.getFd(this.#context)
    const wanted = this.#library.whichEvents(this.#context)
    const events = (wanted & POLLIN ? EPOLLIN : 0) | (wanted & POLLOUT ? EPOLLOUT : 0)
    try {
      if (fd >= 0) this.#watchFor(fd, events)
    } catch (error) {
      // Without being told of answers there is no session, and this may be the process of a replica, which has other things to do.
      return this.destroy(new LonghornError('IO', `the connection to the NFS server ${this.target.host} cannot be watched: ${messageOf(error)}`, {}, {cause: error}))
    }
    if (this.#calls.size === 0) {
      // An idle session keeps no process alive.
      this.#watch.unref()
      clearInterval(this.#sweep)
      this.#sweep = undefined
    }
  }

  #watchFor(fd: number, events: number): void {
    try {
      controlEpoll(this.#epoll, 'modify', fd, events)
    } catch (error) {
      // A new one, perhaps under the old number.
      if (errnoOf(error) !== 'ENOENT') throw error
      controlEpoll(this.#epoll, 'add', fd, events)
    }
  }

  #endOverdue(): void {
    const {timeoutMs, host} = this.target
    const overdue = (): boolean => [...this.#calls.values()].some(({startedMs}) => performance.now() - startedMs > timeoutMs)
    if (!overdue()) return
    // What stood still may have been this process: the answers may be there.
    this.#service()
    if (overdue()) this.destroy(new LonghornError('TIMEOUT', `NFS server ${host} has not answered for ${timeoutMs / 1000} s`))
  }

  #release(): void {
    if (this.#destroyed) return
    this.#destroyed = true
    clearInterval(this.#sweep)
    this.#watch.close()
    closeFd(this.#epoll)
    this.#library.destroy(this.#context)
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
