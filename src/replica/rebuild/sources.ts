import {formatAddress, type TcpAddress} from '../../lib/address.js'
import {LonghornError, messageOf} from '../../lib/errors.js'
import type {Hello} from '../../protocol/hello.js'
import {SourceConnection} from './source-connection.js'

/** Connections to all replicas that have the same thing; a request goes to the one with the least to do, and to another when that fails. */
export class Sources {
  readonly #connections: (SourceConnection | undefined)[]

  /** `addresses`: of control services. Connects when it is needed first. */
  constructor(
    readonly addresses: readonly TcpAddress[],
    readonly hello: Hello,
    readonly signal: AbortSignal,
  ) {
    this.#connections = addresses.map(() => undefined)
  }

  /** UNREACHABLE with the last failure when none can answer; the signal's reason; at once what is not a failure of a source. */
  async ask<T>(question: (source: SourceConnection) => Promise<T>): Promise<T> {
    const failed = new Set<number>()
    let last: unknown
    for (;;) {
      this.signal.throwIfAborted()
      const index = this.#next(failed)
      if (index < 0) {
        const names = this.addresses.map(formatAddress).join(', ')
        throw new LonghornError('UNREACHABLE', `no source can be used any more (${names}): ${messageOf(last)}`, {}, {cause: last})
      }
      try {
        return await question(await this.#connect(index))
      } catch (error) {
        // What a source says or fails at is one; what our own disk does is Node's error.
        if (!(error instanceof LonghornError)) throw error
        last = error
        failed.add(index)
      }
    }
  }

  /** Connects to all of them, which keeps them from purging what is being read. Throws when that is not possible with any. */
  async connectAll(): Promise<void> {
    const results = await Promise.allSettled(this.addresses.map((_, index) => this.#connect(index)))
    if (results.every(result => result.status === 'rejected')) await this.ask(() => Promise.resolve())
  }

  close(): void {
    for (const connection of this.#connections) connection?.close()
  }

  #next(failed: ReadonlySet<number>): number {
    let best = -1
    let least = Infinity
    for (const [index, connection] of this.#connections.entries()) {
      if (failed.has(index)) continue
      const load = connection?.load ?? 0
      if (load >= least) continue
      best = index
      least = load
    }
    return best
  }

  async #connect(index: number): Promise<SourceConnection> {
    const present = this.#connections[index]
    if (present !== undefined && present.lost === undefined) return present
    const made = await SourceConnection.open(this.addresses[index]!, this.hello, this.signal)
    const other = this.#connections[index]
    if (other !== undefined && other.lost === undefined) {
      // Somebody else was faster.
      made.close()
      return other
    }
    this.#connections[index] = made
    return made
  }
}
