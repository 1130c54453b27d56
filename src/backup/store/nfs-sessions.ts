import {setTimeout as delay} from 'node:timers/promises'
import {isKind, LonghornError} from '../../lib/errors.js'
import {NfsError, type NfsTarget} from '../../lib/nfs/nfs-connection.js'
import {NfsSession} from '../../lib/nfs/nfs-session.js'

/** Connections at once; what is asked beyond that waits. */
const SESSIONS = 8
/** A connection that nobody used for so long is ended: servers forget clients that are silent, some after 20 s. */
const IDLE_MS = 10_000
/** How long a server that is gone is tried again, and one that still waits for clients of before its restart (RFC 7530, 9.6.2: as long as its leases, mostly 90 s). */
const LOST_FOR_MS = 30_000
const GRACE_FOR_MS = 150_000
const RACED_FOR_MS = 3000
const FIRST_WAIT_MS = 250
const LONGEST_WAIT_MS = 4000
/** What an aborted operation is given to end by itself and clean up. */
const ABORT_GRACE_MS = 3000

/** The server is there and says "later". */
const LATER = new Set(['GRACE', 'DELAY', 'JUKEBOX', 'RESOURCE', 'LOCKED', 'SHARE_DENIED'])
/** The server does not know the session or its files any more: another session may do. */
const FORGOTTEN = new Set(['STALE_CLIENTID', 'EXPIRED', 'STALE_STATEID', 'BAD_STATEID', 'OLD_STATEID', 'BAD_SEQID', 'LEASE_MOVED', 'ADMIN_REVOKED', 'CLID_INUSE', 'BADSESSION'])

/** Something on the way to a file was removed or replaced while the server looked for it. When it stays so, the export itself is gone. */
const RACED = new Set(['STALE', 'FHEXPIRED'])

type Use<T> = (session: NfsSession) => Promise<T>

/**
 * The connections of a store. Each operation has one for itself; operations are made so that they can be done again from the beginning, and are, when a connection breaks, the server restarts or
 * asks for patience. A server that does not answer at all is given up after its time-out.
 */
export class NfsSessions {
  readonly #idle: {readonly session: NfsSession; readonly sinceMs: number}[] = []
  readonly #active = new Set<NfsSession>()
  readonly #waiting: (() => void)[] = []
  #used = 0
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(
    readonly target: NfsTarget,
    /** How the store is called in errors. */
    readonly url: string,
  ) {}

  /** Connects, to find out at once whether that can be. */
  async probe(): Promise<void> {
    this.#release(await NfsSession.mount(this.target))
  }

  /** Does something that can be done again. An NfsError is the server's refusal; UNREACHABLE and TIMEOUT when it is gone. */
  async run<T>(use: Use<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    await this.#slot(signal)
    try {
      return await this.#patiently(use, signal)
    } finally {
      this.#used--
      this.#waiting.shift()?.()
    }
  }

  /** Ends all connections; what is under way fails. Safe twice. */
  close(): void {
    this.#closed = true
    clearInterval(this.#timer)
    const reason = new LonghornError('INTERRUPTED', `backup store ${this.url} was closed`)
    for (const session of this.#active) session.destroy(reason)
    for (const {session} of this.#idle.splice(0)) session.destroy(reason)
  }

  async #patiently<T>(use: Use<T>, signal: AbortSignal | undefined): Promise<T> {
    let sinceMs: number | undefined
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(LONGEST_WAIT_MS, wait * 2)) {
      try {
        return await this.#once(use, signal)
      } catch (error) {
        const patienceMs = patience(error)
        sinceMs ??= performance.now()
        if (signal?.aborted === true) throw signal.reason
        if (this.#closed || patienceMs === 0 || performance.now() + wait - sinceMs > patienceMs) throw told(error, this.url)
        await delay(wait, undefined, {signal}).catch(() => signal?.throwIfAborted())
      }
    }
  }

  async #once<T>(use: Use<T>, signal: AbortSignal | undefined): Promise<T> {
    const session = this.#takeIdle() ?? (await NfsSession.mount(this.target, signal))
    if (this.#closed) session.destroy(new LonghornError('INTERRUPTED', `backup store ${this.url} was closed`))
    this.#active.add(session)
    let late: NodeJS.Timeout | undefined
    const onAbort = (): void => {
      late = setTimeout(() => session.destroy(signal?.reason), ABORT_GRACE_MS)
    }
    signal?.addEventListener('abort', onAbort, {once: true})
    try {
      return await use(session)
    } catch (error) {
      if (error instanceof NfsError && FORGOTTEN.has(error.status)) session.destroy(error)
      throw error
    } finally {
      clearTimeout(late)
      signal?.removeEventListener('abort', onAbort)
      this.#active.delete(session)
      this.#release(session)
    }
  }

  async #slot(signal: AbortSignal | undefined): Promise<void> {
    while (this.#used >= SESSIONS) await new Promise<void>(resolve => this.#waiting.push(resolve))
    this.#used++
    if (signal?.aborted !== true) return
    this.#used--
    this.#waiting.shift()?.()
    throw signal.reason
  }

  #takeIdle(): NfsSession | undefined {
    for (let last = this.#idle.pop(); last !== undefined; last = this.#idle.pop()) {
      if (last.session.isUsable && performance.now() - last.sinceMs < IDLE_MS) return last.session
      last.session.destroy(new Error('idle'))
    }
    return undefined
  }

  #release(session: NfsSession): void {
    if (!session.isUsable) return
    if (this.#closed) return session.destroy(new Error('closed'))
    this.#idle.push({session, sinceMs: performance.now()})
    this.#timer ??= setInterval(() => this.#endIdle(), IDLE_MS).unref()
  }

  #endIdle(): void {
    const old = this.#idle.filter(({sinceMs}) => performance.now() - sinceMs >= IDLE_MS)
    for (const one of old) {
      this.#idle.splice(this.#idle.indexOf(one), 1)
      one.session.destroy(new Error('idle'))
    }
  }
}

/** For how long a failure is worth another try, in milliseconds. */
function patience(error: unknown): number {
  if (error instanceof NfsError) {
    const {status} = error
    return LATER.has(status) ? GRACE_FOR_MS : FORGOTTEN.has(status) ? LOST_FOR_MS : RACED.has(status) ? RACED_FOR_MS : 0
  }
  // A server that did not answer had its time already.
  return isKind(error, 'UNREACHABLE') ? LOST_FOR_MS : 0
}

function told(error: unknown, url: string): unknown {
  if (error instanceof NfsError && (LATER.has(error.status) || FORGOTTEN.has(error.status))) {
    return new LonghornError('UNREACHABLE', `backup store ${url}: ${error.message}, and did so for too long: it was restarted, or is overloaded; try again`, {status: error.status}, {cause: error})
  }
  return error
}
