import type {Address} from '../../../lib/address.js'
import type {Log} from '../../../lib/log.js'
import {Listener} from '../../../lib/net/listener.js'
import {closeFd} from '../../../lib/net/socket-calls.js'
import type {BlockDevice} from '../../../protocol/block-device.js'
import {Budget} from '../budget.js'
import type {FrontendHandover, ParkedFrontend} from '../frontend.js'
import {waitQuiet} from '../quiet.js'
import {Connection, type ConnectionOptions, type ConnectionState} from './connection.js'

/** Clients open 1 to 16 connections each, and a volume has few clients. */
const MAX_CONNECTIONS = 128
const HANDSHAKE_TIMEOUT_MS = 10_000
const GRACE_MS = 5000

export interface ServerOptions {
  readonly volume: string
  readonly device: BlockDevice
  readonly listen: Address
  readonly log: Log
  readonly handshakeTimeoutMs?: number
}

/** What another process needs to go on: descriptors of the listening socket and of each client. Plain JSON. */
interface ServerState {
  readonly address: Address
  readonly clients: readonly ConnectionState[]
}

/** Serves one device to any number of NBD clients. */
export class NbdServer {
  readonly #options: ServerOptions
  readonly #connectionOptions: ConnectionOptions
  readonly #connections = new Set<Connection>()
  #listener: Listener | undefined
  #accepted = 0
  #refused = 0
  #closed: Promise<void> | undefined
  /** Called when the last connection is gone, while closing. */
  #onEmpty: () => void = () => undefined

  private constructor(options: ServerOptions) {
    const {volume, device, handshakeTimeoutMs = HANDSHAKE_TIMEOUT_MS} = options
    this.#options = options
    this.#connectionOptions = {
      exported: {
        name: volume,
        get sizeBytes() {
          return device.sizeBytes
        },
      },
      device,
      budget: new Budget(),
      handshakeTimeoutMs,
      onClose: (connection, reason) => this.#closedBy(connection, reason),
    }
  }

  /** Throws what Listener.open() throws. */
  static async open(options: ServerOptions): Promise<NbdServer> {
    const server = new NbdServer(options)
    server.#listener = await Listener.open(options.listen, fd => server.#accept(fd))
    return server
  }

  /** Goes on where another process has stopped; see FrontendKind.adopt(). */
  static adopt(options: Omit<ServerOptions, 'listen'>, {state, fds}: FrontendHandover): NbdServer {
    const {address, clients} = state as ServerState
    const server = new NbdServer({...options, listen: address})
    const [listening, ...sockets] = fds as [number, ...number[]]
    server.#listener = Listener.adopt(listening, address, fd => server.#accept(fd))
    clients.forEach((client, index) => server.#add(sockets[index]!, client))
    return server
  }

  /** See Frontend.park(). */
  async park(deadline: number): Promise<ParkedFrontend> {
    const listener = this.#listener!
    const release = (): void => {
      listener.release()
      for (const connection of this.#connections) connection.release()
    }
    listener.hold()
    for (const connection of this.#connections) connection.hold()
    await waitQuiet('nbd', deadline, () => [...this.#connections].every(connection => connection.isQuiet)).catch((error: unknown) => {
      release()
      throw error
    })
    const connections = [...this.#connections]
    const clients = connections.map(connection => connection.detach())
    const state: ServerState = {address: this.address, clients}
    return {
      state,
      fds: [listener.fd, ...connections.map(({fd}) => fd)],
      resume: () => {
        for (const connection of connections) connection.reattach()
        release()
      },
    }
  }

  /** Where it really listens. */
  get address(): Address {
    return this.#listener!.address
  }

  get connections(): number {
    return this.#connections.size
  }

  /** Stops listening, lets requests in flight finish for at most `graceMs`, and ends all connections. Safe twice. */
  close(graceMs = GRACE_MS): Promise<void> {
    this.#closed ??= this.#close(graceMs)
    return this.#closed
  }

  async #close(graceMs: number): Promise<void> {
    const empty = new Promise<void>(resolve => (this.#onEmpty = resolve))
    for (const connection of this.#connections) connection.close()
    const timer = setTimeout(() => {
      this.#options.log.warn({connections: this.#connections.size}, `nbd: clients cut off after ${graceMs} ms`)
      for (const connection of this.#connections) connection.destroy()
    }, graceMs)
    await this.#listener!.close()
    if (this.#connections.size > 0) await empty
    clearTimeout(timer)
  }

  #accept(fd: number): void {
    if (this.#connections.size >= MAX_CONNECTIONS) {
      closeFd(fd)
      // Not once per attempt: whoever does this does it in a loop.
      if (this.#refused++ === 0) this.#options.log.warn(`nbd: refusing clients, there are ${MAX_CONNECTIONS} already`)
      return
    }
    this.#refused = 0
    this.#add(fd)
  }

  #add(fd: number, from?: ConnectionState): void {
    const connection = new Connection(fd, `nbd client ${++this.#accepted}`, this.#connectionOptions, from)
    this.#connections.add(connection)
    this.#options.log.debug({peer: connection.peer}, 'nbd: connected')
  }

  #closedBy(connection: Connection, reason: Error | undefined): void {
    this.#connections.delete(connection)
    const {log} = this.#options
    if (reason === undefined) log.debug({peer: connection.peer}, 'nbd: disconnected')
    else log.warn({peer: connection.peer, reason: reason.message}, 'nbd: connection ended')
    if (this.#connections.size === 0) this.#onEmpty()
  }
}
