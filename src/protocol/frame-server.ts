// The answering side of the data protocol: one connection of an engine to a replica, or of an initiator to the `socket` frontend.
import {LonghornError} from '../lib/errors.js'
import {ByteStream, type StreamHandler} from '../lib/net/byte-stream.js'
import {reactor} from '../lib/net/reactor.js'
import {ERRNO, inRange, MAX_IO_BYTES, OP, type BlockDevice} from './block-device.js'
import {FRAME, FRAME_HEADER_BYTES, FRAME_MAGIC, frameOffset} from './frame.js'
import {FrameGreeting, type Greet} from './frame-greeting.js'
import type {FrameIo} from './frame-io.js'
import {FrameRequests, type NoSpaceType} from './frame-requests.js'
import {FrameSlowPath} from './frame-slow-path.js'
import {FrameWritePayload, isWhole, type ArrivingFrameWrite} from './frame-write-payload.js'

/** A connection with this much in flight or unsent is not read from until it has less. */
const MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
const MAX_REQUESTS_IN_FLIGHT = 1024
const MAX_BYTES_UNSENT = 4 * 1024 * 1024

export interface FrameServerOptions {
  readonly device: BlockDevice
  readonly noSpaceType: NoSpaceType
  /** For messages. */
  readonly peer: string
  readonly onClose: (connection: FrameServerConnection, reason: Error | undefined) => void
  /** Undefined: HELLO is not known here. */
  readonly greet?: Greet | undefined
}

/** What another process needs to go on with a connection; plain JSON. Bytes are in base64. */
export interface FrameServerState {
  readonly input: string
  readonly unsent: string
  /** Payload that is not looked at, still to come. Bytes. */
  readonly skip: number
  /** A WRITE whose payload is arriving, of which nothing is under way. */
  readonly writing?: ArrivingFrameWrite | undefined
}

/** Reads the frames of one connection, holds back a peer that is too far ahead, and can be given to another process. */
export class FrameServerConnection implements StreamHandler {
  readonly stream: ByteStream
  readonly #options: FrameServerOptions
  readonly #requests: FrameRequests
  readonly #slow: FrameSlowPath
  readonly #payload: FrameWritePayload
  readonly #greeting: FrameGreeting | undefined
  #stopped = false
  /** Payload of a frame that has none to our knowledge, skipped. */
  #skip = 0

  /** `from`: where another process has stopped. */
  constructor(fd: number, options: FrameServerOptions, from?: FrameServerState) {
    this.#options = options
    this.stream = new ByteStream(fd, this, options.peer)
    this.#requests = new FrameRequests(this.stream, options.device, options.noSpaceType, () => this.#resume())
    this.#slow = new FrameSlowPath(this.#requests)
    this.#payload = new FrameWritePayload(this.stream, this.#requests, this.#slow)
    this.#greeting = options.greet && new FrameGreeting(this.#requests, options.greet)
    if (from !== undefined) this.#goOn(from)
  }

  /** All requests are answered, except a WRITE whose payload is still arriving, of which nothing is under way. */
  get isQuiet(): boolean {
    const {bytes, inFlight} = this.#requests
    const writing = this.#payload.request
    return bytes === 0 && (writing === undefined ? inFlight === 0 : inFlight === 1 && writing.pieces === 1)
  }

  /** Stops to look at the socket, and says what another process needs to go on. Its input is held, and it is quiet. */
  detach(): FrameServerState {
    const {stream} = this
    stream.detach()
    return {
      input: stream.unhandledInput().toString('base64'),
      unsent: stream.output.unsent().toString('base64'),
      skip: this.#skip,
      writing: this.#payload.state(),
    }
  }

  #goOn({input, unsent, skip, writing}: FrameServerState): void {
    this.#skip = skip
    if (writing !== undefined) this.#payload.goOn(this.#requests.take(), writing)
    this.stream.preload(Buffer.from(input, 'base64'), Buffer.from(unsent, 'base64'))
  }

  /** Requests that have not been answered and still will be: a write whose payload is no longer read never is. */
  get requestsInFlight(): number {
    return this.#stopped && this.#payload.request !== undefined ? this.#requests.inFlight - 1 : this.#requests.inFlight
  }

  get closed(): boolean {
    return this.stream.closed
  }

  /** Takes no more requests; those in flight are still answered. */
  stopReading(): void {
    this.#stopped = true
    this.stream.pause()
  }

  /** Ends the connection. Requests in flight finish on the device; their answers are dropped. Safe twice. */
  close(reason?: Error): void {
    this.stream.destroy(reason)
  }

  onInput(stream: ByteStream): void {
    while (!stream.closed) {
      if (this.#isFull()) {
        stream.pause()
        return
      }
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, stream.available)
        stream.start += skipped
        this.#skip -= skipped
        if (this.#skip > 0) return
      }
      if (this.#payload.request !== undefined) {
        if (!this.#payload.advance()) return
      } else {
        if (stream.available < FRAME_HEADER_BYTES || this.#greeting?.isWhole(stream) === false) return
        this.#takeHeader(stream)
      }
    }
  }

  onDrain(stream: ByteStream): void {
    if (stream.paused && !this.#isFull()) stream.resume()
  }

  #resume(): void {
    if (this.stream.paused && !this.stream.closed && !this.#isFull()) this.stream.resume()
  }

  onClose(_stream: ByteStream, reason: Error | undefined): void {
    this.#options.onClose(this, reason)
  }

  #isFull(): boolean {
    return (
      this.#stopped ||
      this.#requests.bytes > MAX_BYTES_IN_FLIGHT ||
      this.#requests.inFlight >= MAX_REQUESTS_IN_FLIGHT ||
      this.stream.output.bytes > MAX_BYTES_UNSENT
    )
  }

  #takeHeader(stream: ByteStream): void {
    reactor.busyPoll.messages++
    const {input, start} = stream
    if (input.readUInt16LE(start) !== FRAME_MAGIC) {
      throw new LonghornError('PROTOCOL', `${stream.peer}: sent something that is not a frame`)
    }
    const type = input.readUInt32LE(start + 6)
    const payload = input.readUInt32LE(start + 22)
    const io = this.#requests.take()
    io.sequence = input.readUInt32LE(start + 2)
    io.type = type
    io.frameOffset = frameOffset(input, start)
    io.frameSize = type === FRAME.WRITE || type === FRAME.WRITE_DURABLE || isWhole(type) ? payload : input.readUInt32LE(start + 18)
    stream.start += FRAME_HEADER_BYTES
    switch (type) {
      case FRAME.WRITE:
      case FRAME.WRITE_DURABLE:
      case FRAME.WRITE_ATOMIC:
      case FRAME.REPAIR:
        this.#startWrite(io)
        return
      case FRAME.READ:
        this.#skip = payload
        this.#requests.startRead(io)
        return
      case FRAME.PING:
        this.#skip = payload
        io.frameSize = 0
        this.#requests.finish(io, 0)
        return
      case FRAME.UNMAP:
        this.#skip = payload
        this.#requests.startWhole(io, OP.DISCARD)
        return
      case FRAME.FLUSH:
        this.#skip = payload
        io.frameSize = 0
        io.frameOffset = 0
        this.#requests.startWhole(io, OP.FLUSH)
        return
      case FRAME.WRITE_ZEROES:
      case FRAME.WRITE_ZEROES_ALLOCATED:
        this.#skip = payload
        this.#requests.startWhole(io, OP.WRITE_ZEROES)
        return
      case FRAME.BLOCK_STATUS:
        this.#skip = payload
        this.#slow.blockStatus(io)
        return
      case FRAME.DIGEST:
        this.#skip = payload
        this.#slow.digest(io)
        return
      case FRAME.HELLO:
        if (this.#greeting === undefined) this.#ignore(io, payload)
        else this.#greeting.take(io, payload)
        return
      default:
        this.#ignore(io, payload)
    }
  }

  /** As upstream's servers do: a type that is no request gets no answer. */
  #ignore(io: FrameIo, payload: number): void {
    this.#skip = payload
    this.#requests.recycle(io)
  }

  #startWrite(io: FrameIo): void {
    const tooLong = isWhole(io.type) && io.frameSize > MAX_IO_BYTES
    if (tooLong || !inRange(io.frameOffset, io.frameSize, this.#requests.device.sizeBytes)) {
      this.#skip = io.frameSize
      this.#requests.finish(io, ERRNO.EINVAL)
      return
    }
    this.#payload.begin(io)
  }
}
