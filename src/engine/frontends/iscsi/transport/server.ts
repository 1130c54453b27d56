import type {Address} from '../../../../lib/address.js'
import {LonghornError} from '../../../../lib/errors.js'
import type {Log} from '../../../../lib/log.js'
import {Listener} from '../../../../lib/net/listener.js'
import {closeFd} from '../../../../lib/net/socket-calls.js'
import type {DeviceServer} from '../scsi-task.js'
import {Connection, type ConnectionOptions, type Timeouts} from './connection.js'
import type {LoginRules} from './login.js'
import {Target} from './target.js'

/** Sessions, discovery and logins together. */
const MAX_CONNECTIONS = 128
const CHECK_EVERY_MS = 1000
const GRACE_MS = 5000
/** Initiators that have been asked to log out and have nothing under way are not waited for any longer. */
const LOGOUT_MS = 500
const POLL_MS = 5
const SHUTTING_DOWN = 'the target is shutting down'

const TIMEOUTS: Timeouts = {loginMs: 15_000, pingAfterMs: 15_000, pingMs: 30_000, stallMs: 60_000}

export interface ServerOptions {
  readonly rules: LoginRules
  readonly deviceServer: DeviceServer
  readonly listen: Address
  readonly log: Log
  readonly timeouts?: Partial<Timeouts>
  /** How often they are looked at. */
  readonly checkEveryMs?: number
}

/** An iSCSI target with one portal. */
export class IscsiServer {
  readonly #options: ServerOptions
  readonly #connectionOptions: ConnectionOptions
  readonly #target: Target
  readonly #connections = new Set<Connection>()
  readonly #timer: NodeJS.Timeout
  #listener: Listener | undefined
  #accepted = 0
  #refused = 0
  #closed: Promise<void> | undefined

  private constructor(options: ServerOptions) {
    const {rules, deviceServer, log, timeouts = {}, checkEveryMs = CHECK_EVERY_MS} = options
    this.#options = options
    this.#target = new Target(rules, deviceServer)
    this.#connectionOptions = {
      target: this.#target,
      timeouts: {...TIMEOUTS, ...timeouts},
      log,
      onClose: connection => this.#connections.delete(connection),
    }
    this.#timer = setInterval(() => this.#checkTimeouts(), checkEveryMs)
    this.#timer.unref()
  }

  /** Throws what Listener.open() throws. */
  static async open(options: ServerOptions): Promise<IscsiServer> {
    const server = new IscsiServer(options)
    try {
      server.#listener = await Listener.open(options.listen, fd => server.#accept(fd))
    } catch (error) {
      clearInterval(server.#timer)
      throw error
    }
    return server
  }

  /** Goes on with the listening socket of another process. */
  static adopt(options: ServerOptions, listening: number): IscsiServer {
    const server = new IscsiServer(options)
    server.#listener = Listener.adopt(listening, options.listen, fd => server.#accept(fd))
    return server
  }

  /**
   * Lets initiators wait that want to log in, and has all others log out, as close() does: they log in again, and send again what was
   * not answered, as soon as somebody accepts them. Throws TIMEOUT when something does not end; they are accepted here then.
   */
  async park(deadline: number): Promise<{readonly fd: number; resume(): void}> {
    const listener = this.#listener!
    listener.hold()
    await this.#endSessions(deadline - performance.now(), 'another engine takes over the target')
    if (this.#connections.size > 0) {
      listener.release()
      throw new LonghornError('TIMEOUT', 'iscsi: commands are under way that do not end')
    }
    return {fd: listener.fd, resume: () => listener.release()}
  }

  /** Where it really listens. */
  get address(): Address {
    return this.#listener!.address
  }

  get connections(): number {
    return this.#connections.size
  }

  get sessions(): number {
    return this.#target.sessions.length
  }

  /**
   * Stops listening and asks all initiators to log out; lets commands in flight finish for at most `graceMs`, then ends all
   * connections. Safe twice.
   */
  close(graceMs = GRACE_MS): Promise<void> {
    this.#closed ??= this.#close(graceMs)
    return this.#closed
  }

  async #close(graceMs: number): Promise<void> {
    const listening = this.#listener!.close()
    await this.#endSessions(graceMs, SHUTTING_DOWN)
    clearInterval(this.#timer)
    for (const connection of [...this.#connections]) connection.end(SHUTTING_DOWN)
    await listening
  }

  /** Asks all initiators to log out, and ends those connections that have nothing under way; what is left after `graceMs` stays. */
  async #endSessions(graceMs: number, why: string): Promise<void> {
    for (const connection of this.#connections) connection.requestLogout(Math.ceil(graceMs / 1000))
    const started = performance.now()
    while (this.#connections.size > 0) {
      const waitedMs = performance.now() - started
      const isBusy = [...this.#connections].some(connection => connection.isBusy)
      if (waitedMs >= graceMs) return
      if (!isBusy && waitedMs >= LOGOUT_MS) break
      await delay(POLL_MS)
    }
    for (const connection of [...this.#connections]) connection.end(why)
  }

  #accept(fd: number): void {
    const {log} = this.#options
    if (this.#connections.size >= MAX_CONNECTIONS) {
      closeFd(fd)
      // Not once per attempt: whoever does this does it in a loop.
      if (this.#refused++ === 0) log.warn(`iscsi: refusing initiators, there are ${MAX_CONNECTIONS} connections already`)
      return
    }
    this.#refused = 0
    this.#connections.add(new Connection(fd, `initiator ${++this.#accepted}`, this.#connectionOptions))
  }

  #checkTimeouts(): void {
    const now = performance.now()
    for (const connection of [...this.#connections]) connection.checkTimeouts(now)
  }
}

function delay(ms: number): Promise<void> {
  return new Promise(resolve => {
    setTimeout(resolve, ms)
  })
}
