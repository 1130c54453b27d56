import {NbdClient} from '../../engine/frontends/nbd/support/nbd-client.js'
import {until} from '../../support/until.js'
import type {StampedBlocks} from './stamped-blocks.js'

const CONNECTIONS = 3
const DEPTH = 12
const TIMEOUT_MS = 60_000

/** Clients that keep an export busy, and what came of it. */
export class Load {
  readonly #clients: readonly NbdClient[]
  readonly #blocks: StampedBlocks
  readonly #over: Promise<unknown>
  #stopping = false
  #ended = false
  #failure: Error | undefined

  private constructor(clients: readonly NbdClient[], blocks: StampedBlocks) {
    this.#clients = clients
    this.#blocks = blocks
    this.#over = Promise.all(clients.map(client => blocks.load(client, DEPTH, () => this.#stopping))).then(
      () => (this.#ended = true),
      (error: unknown) => {
        this.#failure = error as Error
        this.#stopping = true
        this.#ended = true
      },
    )
  }

  /** On a unix socket, by its URI. */
  static async start(uri: string, blocks: StampedBlocks): Promise<Load> {
    const socket = new URL(uri).searchParams.get('socket') ?? ''
    return new Load(await Promise.all(Array.from({length: CONNECTIONS}, () => NbdClient.open(socket))), blocks)
  }

  /** Waits until so many more requests have been answered. */
  async goesOn(more: number): Promise<void> {
    const goal = this.#blocks.answers + more
    await until(() => this.#blocks.answers >= goal || this.#ended, `${more} more answers`, TIMEOUT_MS)
    if (this.#blocks.answers < goal) throw this.#failure ?? new Error('the server has hung up')
  }

  /** Waits for the server to hang up. Throws when it has given a wrong answer before. */
  async end(): Promise<void> {
    await until(() => this.#ended, 'the server hangs up', TIMEOUT_MS)
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Waits for a wrong answer, and gives it. */
  async fails(): Promise<Error | undefined> {
    await until(() => this.#ended, 'an answer is wrong', TIMEOUT_MS)
    for (const client of this.#clients) client.kill()
    return this.#failure
  }

  /** Lets what was asked be answered, and hangs up. */
  async stop(): Promise<void> {
    this.#stopping = true
    await this.end()
    await this.#over
    await Promise.all(this.#clients.map(client => client.close()))
  }
}
