import {randomBytes} from 'node:crypto'
import {lookup} from 'node:dns/promises'
import {constants, hostname} from 'node:os'
import koffi, {type node} from 'koffi'
import {asError, errnoOf, LonghornError, messageOf} from '../errors.js'
import {controlEpoll, createEpoll, EPOLLIN, EPOLLOUT} from '../net/epoll.js'
import {closeFd} from '../net/socket-calls.js'
import {forgetAnswer, loadLibnfs, onAnswer, POLLIN, POLLOUT, readyEvents, type Libnfs} from './libnfs.js'

const SWEEP_MS = 500
const MOUNTING = 'mounting the export'

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
 * Whatever breaks the connection ends it: all calls fail with that (UNREACHABLE, TIMEOUT), now and later. It is never made again, so that nothing is written to a server that has forgotten
 * what came before.
 */
export class NfsConnection {
  /** The most bytes of a read and of a write, as the server says; 0 where it does not. */
  maxBytes = {read: 0, write: 0}
  readonly #epoll: number
  readonly #watch: node.PollHandle
  readonly #calls = new Map<number, Call>()
  #sweep: NodeJS.Timeout | undefined
  #serving = false
  #failure: Error | undefined
  #destroyed = false

  private constructor(
    readonly library: Libnfs,
    /** For what begins calls, and is called by call() alone: it is gone when the connection is. */
    readonly context: number,
    readonly target: NfsTarget,
  ) {
    // libnfs changes its descriptor while it mounts. An epoll descriptor of our own stays, and forgets what is closed.
    this.#epoll = createEpoll()
    this.#watch = koffi.node.poll(this.#epoll, {readable: true}, () => this.#service())
    this.#watch.unref()
  }

  /** Connects and mounts. UNREACHABLE, TIMEOUT; USAGE when the server refuses the export; UNSUPPORTED without libnfs. */
  static async mount(target: NfsTarget, signal?: AbortSignal): Promise<NfsConnection> {
    const library = loadLibnfs()
    const {address} = await lookup(target.host).catch((error: unknown) => {
      throw new LonghornError('UNREACHABLE', `NFS server ${target.host} cannot be found: ${messageOf(error)}`, {}, {cause: error})
    })
    const context = library.init()
    if (context === 0) throw new LonghornError('IO', 'libnfs could not be started: out of memory')
    const connection = new NfsConnection(library, context, target)
    const onAbort = (): void => connection.destroy(signal?.reason)
    signal?.addEventListener('abort', onAbort, {once: true})
    try {
      signal?.throwIfAborted()
      connection.#configure()
      await connection.call(MOUNTING, token => library.mount(context, address, target.path, library.callback, token), () => {
        connection.maxBytes = {read: library.readMax(context), write: library.writeMax(context)}
      })
    } catch (error) {
      connection.destroy(error)
      if (!(error instanceof NfsError)) throw error
      if (error.status === 'MINOR_VERS_MISMATCH') throw new LonghornError('UNSUPPORTED', `NFS server ${target.host} does not speak version 4.0, and nothing newer can be spoken without a mount: add nfsClient=kernel to the URL`, {}, {cause: error})
      throw new LonghornError('USAGE', `NFS server ${target.host} does not give ${target.path} to this client: ${error.message}`, {status: error.status}, {cause: error})
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
    return connection
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

  #configure(): void {
    const {parseUrl, destroyUrl, setClientName, setVerifier} = this.library
    const {version, port = version === 4 ? 2049 : undefined, mountPort} = this.target
    const settings = new URLSearchParams({version: String(version), autoreconnect: '0', dircache: '0'})
    if (port !== undefined) settings.set('nfsport', String(port))
    if (mountPort !== undefined) settings.set('mountport', String(mountPort))
    const url = parseUrl(this.context, `nfs://server/path?${settings.toString()}`)
    if (url === 0) throw new LonghornError('UNSUPPORTED', `libnfs does not take the settings ${settings.toString()}: ${this.library.getError(this.context)}`)
    destroyUrl(url)
    // Two clients of one name would take each other's files away.
    setClientName(this.context, `longhorn ${hostname().slice(0, 64)} ${process.pid} ${randomBytes(8).toString('hex')}`)
    setVerifier(this.context, randomBytes(8))
  }

  /** Makes one call. `take` looks at its result at once: what `data` points at does not stay. */
  call<T>(doing: string, begin: (token: number) => number, take: (status: number, data: number) => T): Promise<T> {
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
    const text = this.library.getError(this.context) ?? ''
    const code = /NFS[34]?ERR_([A-Z_]+)/.exec(text)?.[1]
    return new NfsError(code ?? `E${-status}`, `${doing}: ${code === undefined ? `${text || 'failed'} (${status})` : `the server says ${code}`}`)
  }

  #lose(doing: string): void {
    const text = this.library.getError(this.context) || 'the connection ended'
    const what = doing === MOUNTING ? 'cannot be reached' : `was lost while ${doing}`
    this.destroy(new LonghornError('UNREACHABLE', `NFS server ${this.target.host} ${what}: ${text}`))
  }

  /** Has libnfs send and receive what can be. Callbacks come in here. */
  #service(): void {
    const {getFd, whichEvents, service} = this.library
    if (this.#destroyed) return
    const fd = getFd(this.context)
    const events = fd < 0 ? 0 : readyEvents(fd, whichEvents(this.context))
    this.#serving = true
    let result: number
    try {
      result = service(this.context, events)
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
    const fd = this.library.getFd(this.context)
    const wanted = this.library.whichEvents(this.context)
    const events = (wanted & POLLIN ? EPOLLIN : 0) | (wanted & POLLOUT ? EPOLLOUT : 0)
    try {
      if (fd >= 0) this.#watchFor(fd, events)
    } catch (error) {
      // Without being told of answers there is no connection, and this may be the process of a replica, which has other things to do.
      return this.destroy(new LonghornError('IO', `the connection to the NFS server ${this.target.host} cannot be watched: ${messageOf(error)}`, {}, {cause: error}))
    }
    if (this.#calls.size === 0) {
      // An idle connection keeps no process alive.
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
    this.library.destroy(this.context)
  }
}
