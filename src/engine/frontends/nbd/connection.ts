import {LonghornError} from '../../../lib/errors.js'
import {ByteStream, type StreamHandler} from '../../../lib/net/byte-stream.js'
import type {BlockDevice} from '../../../protocol/block-device.js'
import type {Budget} from '../budget.js'
import {Handshake, type Agreement, type Export, type HandshakeState} from './handshake.js'
import {Transmission} from './transmission.js'
import type {ArrivingWrite} from './write-payload.js'

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

/** What another process needs to go on with a client; plain JSON. Bytes are in base64. */
export interface ConnectionState {
  readonly input: string
  readonly unsent: string
  readonly handshake?: HandshakeState | undefined
  readonly agreement?: Agreement | undefined
  readonly arriving?: ArrivingWrite | undefined
}

/** One client: first its handshake, then its requests. */
export class Connection implements StreamHandler {
  readonly #stream: ByteStream
  readonly #handshake: Handshake
  readonly #timer: NodeJS.Timeout
  #transmission: Transmission | undefined
  #agreement: Agreement | undefined

  /** Takes over the descriptor of a connected socket. */
  constructor(
    fd: number,
    readonly peer: string,
    readonly options: ConnectionOptions,
    /** Where another process has stopped; a new client without it. */
    from?: ConnectionState,
  ) {
    const {budget, exported, handshakeTimeoutMs} = options
    budget.enter()
    this.#stream = new ByteStream(fd, this, peer)
    this.#handshake = new Handshake(exported)
    this.#timer = setTimeout(() => {
      this.#stream.destroy(new LonghornError('TIMEOUT', `${peer}: no export chosen within ${handshakeTimeoutMs} ms`))
    }, handshakeTimeoutMs)
    this.#timer.unref()
    if (from === undefined) this.#handshake.greet(this.#stream)
    else this.#goOn(from)
  }

  get fd(): number {
    return this.#stream.fd
  }

  /** Reads nothing from the client any more; what it has asked for is answered. */
  hold(): void {
    this.#stream.holdInput()
  }

  /** Ends hold(). */
  release(): void {
    this.#stream.releaseInput()
  }

  /** Held, and nothing of it is under way. */
  get isQuiet(): boolean {
    return this.#transmission?.isQuiet ?? true
  }

  /** Stops to look at the socket, and says what another process needs to go on. It is quiet. */
  detach(): ConnectionState {
    const {output} = this.#stream
    this.#stream.detach()
    return {
      input: this.#stream.unhandledInput().toString('base64'),
      unsent: output.unsent().toString('base64'),
      handshake: this.#transmission === undefined ? this.#handshake.state : undefined,
      agreement: this.#agreement,
      arriving: this.#transmission?.arriving(),
    }
  }

  reattach(): void {
    this.#stream.reattach()
  }

  #goOn({input, unsent, handshake, agreement, arriving}: ConnectionState): void {
    if (handshake !== undefined) this.#handshake.goOn(handshake)
    if (agreement !== undefined) this.#transmit(agreement)
    if (arriving !== undefined) this.#transmission?.goOn(arriving)
    this.#stream.preload(Buffer.from(input, 'base64'), Buffer.from(unsent, 'base64'))
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
    return agreement === undefined ? undefined : this.#transmit(agreement)
  }

  #transmit(agreement: Agreement): Transmission {
    clearTimeout(this.#timer)
    this.#agreement = agreement
    this.#transmission = new Transmission(this.#stream, this.options.device, agreement, this.options.budget)
    return this.#transmission
  }
}
