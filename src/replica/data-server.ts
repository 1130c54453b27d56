import type {Address} from '../lib/address.js'
import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {Listener} from '../lib/net/listener.js'
import {closeFd} from '../lib/net/socket-calls.js'
import {ERRNO, type BlockDevice, type Extent, type Io} from '../protocol/block-device.js'
import {FRAME} from '../protocol/frame.js'
import {parseHello, type ExportHello} from '../protocol/hello.js'
import {FrameServerConnection} from '../protocol/frame-server.js'
import type {Slab} from '../lib/net/slab.js'

/** More engines and tools than this at one replica is somebody who leaks connections. */
const MAX_CONNECTIONS = 64

/** Who a data connection may be; see DataServer.serve(). */
export interface Served {
  readonly device: BlockDevice
  /** The engine's session. */
  readonly session: string
  /** Only connections that have said that they belong to this session may do anything: its engine is one that says so. */
  readonly strict: boolean
}

/** What connections that ask for something else than the volume get: a frozen layer, or the volume under it. Throws LonghornError. */
export type OpenExport = (hello: ExportHello) => Promise<Export>

export interface Export {
  readonly device: BlockDevice
  close(): void
}

/**
 * The data protocol's port of a replica. It listens as long as the process lives; the device behind it comes and goes.
 * Without one every request is answered with an error, as upstream's replicas do while they are closed.
 */
export class DataServer {
  #served: Served | undefined
  readonly #connections = new Set<FrameServerConnection>()
  readonly #log: Log
  #listener: Listener | undefined
  #accepted = 0
  /** Set by the replica behind it. */
  openExport: OpenExport = () => Promise.reject(new LonghornError('CONFLICT', 'there is no replica here'))

  private constructor(log: Log) {
    this.#log = log
  }

  /** Throws as Listener.open() does. */
  static async start(address: Address, log: Log): Promise<DataServer> {
    const server = new DataServer(log)
    server.#listener = await Listener.open(address, fd => server.#accept(fd))
    return server
  }

  get address(): Address {
    return this.#listener!.address
  }

  /** What requests go to from now on; undefined: nothing, they fail. */
  serve(served: Served | undefined): void {
    this.#served = served
  }

  /** Ends every connection: whoever was connected is fenced. */
  disconnectAll(reason: Error): void {
    for (const connection of [...this.#connections]) connection.close(reason)
  }

  /** Stops listening and ends every connection. Safe twice. */
  async close(): Promise<void> {
    await this.#listener?.close()
    this.disconnectAll(new LonghornError('INTERRUPTED', 'the replica is shutting down'))
  }

  #accept(fd: number): void {
    const peer = `data connection ${++this.#accepted}`
    if (this.#connections.size >= MAX_CONNECTIONS) {
      this.#log.warn({connections: MAX_CONNECTIONS}, 'too many data connections, refusing a new one')
      closeFd(fd)
      return
    }
    let opened: Export | undefined
    const connection = new FrameServerConnection(fd, {
      // A connection that says nothing is one of upstream's engines.
      device: new ServedDevice(() => (this.#served?.strict === false ? this.#served.device : undefined)),
      noSpaceType: FRAME.ERROR,
      peer,
      greet: async text => {
        if (opened !== undefined) throw new LonghornError('PROTOCOL', 'this connection has a purpose already')
        const hello = parseHello(text)
        if (hello.kind === 'engine') return this.#engineDevice(hello.session)
        opened = await this.openExport(hello)
        if (connection.closed) opened.close()
        return opened.device
      },
      onClose: (closed, reason) => {
        opened?.close()
        this.#connections.delete(closed)
        if (reason === undefined) this.#log.info({peer}, 'disconnected')
        else this.#log.warn({peer, reason: reason.message}, 'data connection ended')
      },
    })
    this.#connections.add(connection)
    this.#log.info({peer}, 'connected')
  }

  /** For the connections of one session. */
  #engineDevice(session: string): BlockDevice {
    if (this.#served?.session !== session) throw new LonghornError('CONFLICT', 'another engine has taken over this replica, or it is closed')
    return new ServedDevice(() => (this.#served?.session === session ? this.#served.device : undefined))
  }
}

class ServedDevice implements BlockDevice {
  /** `find`: the device at this moment; undefined when there is none for this connection. */
  constructor(readonly find: () => BlockDevice | undefined) {}

  /** While there is no device every range is let through to submit(), whose answer says what is wrong. */
  get sizeBytes(): number {
    return this.find()?.sizeBytes ?? Number.MAX_SAFE_INTEGER
  }

  submit(io: Io, slab?: Slab, start?: number): void {
    const device = this.find()
    if (device === undefined) io.onDone(ERRNO.ESHUTDOWN)
    else device.submit(io, slab, start)
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    const device = this.find()
    if (device === undefined) throw new LonghornError('CONFLICT', 'the replica is closed')
    return device.blockStatus(offset, length)
  }

  async repair(data: Buffer, offset: number): Promise<number> {
    const device = this.find()
    if (device?.repair === undefined) throw new LonghornError('CONFLICT', 'the replica is closed')
    return device.repair(data, offset)
  }
}
