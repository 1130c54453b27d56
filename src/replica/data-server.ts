import type {Address} from '../lib/address.js'
import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {Listener} from '../lib/net/listener.js'
import {closeFd} from '../lib/net/socket-calls.js'
import {ERRNO, type BlockDevice, type Extent, type Io} from '../protocol/block-device.js'
import {FRAME} from '../protocol/frame.js'
import {FrameServerConnection} from '../protocol/frame-server.js'
import type {Slab} from '../lib/net/slab.js'

/** More engines and tools than this at one replica is somebody who leaks connections. */
const MAX_CONNECTIONS = 64

/**
 * The data protocol's port of a replica. It listens as long as the process lives; the device behind it comes and goes.
 * Without one every request is answered with an error, as upstream's replicas do while they are closed.
 */
export class DataServer {
  readonly #served = new ServedDevice()
  readonly #connections = new Set<FrameServerConnection>()
  readonly #log: Log
  #listener: Listener | undefined
  #accepted = 0

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
  serve(device: BlockDevice | undefined): void {
    this.#served.device = device
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
    const connection = new FrameServerConnection(fd, {
      device: this.#served,
      noSpaceType: FRAME.ERROR,
      peer,
      onClose: (closed, reason) => {
        this.#connections.delete(closed)
        if (reason === undefined) this.#log.info({peer}, 'disconnected')
        else this.#log.warn({peer, reason: reason.message}, 'data connection ended')
      },
    })
    this.#connections.add(connection)
    this.#log.info({peer}, 'connected')
  }
}

class ServedDevice implements BlockDevice {
  device: BlockDevice | undefined

  /** While there is no device every range is let through to submit(), whose answer says what is wrong. */
  get sizeBytes(): number {
    return this.device?.sizeBytes ?? Number.MAX_SAFE_INTEGER
  }

  submit(io: Io, slab?: Slab, start?: number): void {
    if (this.device === undefined) io.onDone(ERRNO.ESHUTDOWN)
    else this.device.submit(io, slab, start)
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    if (this.device === undefined) throw new LonghornError('CONFLICT', 'the replica is closed')
    return this.device.blockStatus(offset, length)
  }

  async repair(data: Buffer, offset: number): Promise<number> {
    if (this.device?.repair === undefined) throw new LonghornError('CONFLICT', 'the replica is closed')
    return this.device.repair(data, offset)
  }
}
