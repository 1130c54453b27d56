import {formatAddress, type TcpAddress} from '../../lib/address.js'
import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import type {Hello} from '../../protocol/hello.js'
import {SourceConnection} from './source-connection.js'

/** A source cannot be reached, or not be read. */
export class SourceFailure extends LonghornError {
  constructor(
    readonly source: TcpAddress,
    cause: LonghornError,
  ) {
    super('UNREACHABLE', cause.message, {}, {cause})
  }
}

/**
 * Connections to all replicas that have the same thing. What is read the same everywhere is asked of the one with the least to do, and of another
 * when that fails. Layers may differ in what newer ones hide, so a region of them is asked of one that its number decides, for all layers.
 */
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

  /** Connects to all of them, which keeps them from purging what is being read. Those that can be reached; throws SourceFailure when that is none. */
  async connectAll(): Promise<readonly TcpAddress[]> {
    const results = await Promise.allSettled(this.addresses.map((_, index) => this.askFor(index, () => Promise.resolve())))
    const [first] = results
    if (first?.status === 'rejected' && results.every(result => result.status === 'rejected')) throw first.reason
    return this.addresses.filter((_, index) => results[index]!.status === 'fulfilled')
  }

  /** Of the one that has the say in a region. Throws SourceFailure when that one fails. */
  async askFor<T>(region: number, question: (source: SourceConnection) => Promise<T>): Promise<T> {
    this.signal.throwIfAborted()
    const index = this.indexFor(region)
    try {
      return await question(await this.#connect(index))
    } catch (error) {
      // What a source says or fails at is one; what our own disk does is Node's error. That they do not agree can be the fault of both.
      if (!(error instanceof LonghornError) || isKind(error, 'CORRUPT') || this.signal.aborted) throw error
      throw new SourceFailure(this.addresses[index]!, error)
    }
  }

  /** Of each, in the order of their indexes. Throws when one fails. */
  askEach<T>(question: (source: SourceConnection) => Promise<T>): Promise<T[]> {
    return Promise.all(this.addresses.map((_, index) => this.askFor(index, question)))
  }

  indexFor(region: number): number {
    return region % this.addresses.length
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
