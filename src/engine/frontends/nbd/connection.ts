import {LonghornError} from '../../../lib/errors.js'
import {ByteStream, type StreamHandler} from '../../../lib/net/byte-stream.js'
import type {BlockDevice} from '../../../protocol/block-device.js'
import type {Budget} from '../budget.js'
import {Handshake, type Export} from './handshake.js'
import {Transmission} from './transmission.js'

/** What the server gives each of its connections. */
export interface ConnectionOptions {
  readonly exported: Export
  readonly device: BlockDevice
  readonly budget: Budget
  /** A client that has not chosen the export by then is cut off. */
  readonly handshakeTimeoutMs: number
  /** Called once; `reason` undefined when the connection ended in order. */
  readonly onClose: (connection: Connection, reason: Error | undefined) => void
}

/** One client: first its handshake, then its requests. */
export class Connection implements StreamHandler {
  readonly #stream: ByteStream
  readonly #handshake: Handshake
  readonly #timer: NodeJS.Timeout
  #transmission: Transmission | undefined

  /** Takes over the descriptor of a connected socket. */
  constructor(
    fd: number,
    readonly peer: string,
    readonly options: ConnectionOptions,
  ) {
    const {budget, exported, handshakeTimeoutMs} = options
    budget.enter()
    this.#stream = new ByteStream(fd, this, peer)
    this.#handshake = new Handshake(exported)
    this.#timer = setTimeout(() => {
      this.#stream.destroy(new LonghornError('TIMEOUT', `${peer}: no export chosen within ${handshakeTimeoutMs} ms`))
    }, handshakeTimeoutMs)
    this.#timer.unref()
    this.#handshake.greet(this.#stream)
  }

  onInput(stream: ByteStream): void {
    this.#transmission ??= this.#negotiate(stream)
    this.#transmission?.handleInput()
  }

  onDrain(): void {
    this.#transmission?.handleDrain()
  }

  onClose(_stream: ByteStream, reason: Error | undefined): void {
    clearTimeout(this.#timer)
    this.options.budget.leave()
    this.options.onClose(this, reason)
  }

  /** Ends the connection once all requests in flight are answered; those that still come in are refused. */
  close(): void {
    if (this.#transmission === undefined) this.#stream.destroy()
    else this.#transmission.close()
  }

  /** Ends the connection now; the client is told which of its requests will not be answered. */
  destroy(): void {
    if (this.#stream.closed) return
    this.#transmission?.refuseAll()
    // What the kernel does not take at once is lost: this client has not been reading.
    this.#stream.flush()
    this.#stream.destroy()
  }

  #negotiate(stream: ByteStream): Transmission | undefined {
    const agreement = this.#handshake.handleInput(stream)
    if (agreement === undefined) return undefined
    clearTimeout(this.#timer)
    return new Transmission(stream, this.options.device, agreement, this.options.budget)
  }
}
