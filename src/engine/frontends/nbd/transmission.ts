import {LonghornError} from '../../../lib/errors.js'
import type {ByteStream} from '../../../lib/net/byte-stream.js'
import {reactor, type Flushable} from '../../../lib/net/reactor.js'
import type {BlockDevice} from '../../../protocol/block-device.js'
import type {Budget} from '../budget.js'
import type {Agreement} from './handshake.js'
import {COMMAND, MAX_PAYLOAD_BYTES, NBD_ERROR, REQUEST_MAGIC} from './protocol.js'
import {RequestRunner, STATUS_BYTES} from './request-runner.js'
import {WritePayload, type ArrivingWrite} from './write-payload.js'

// A request:
//   0 u32 magic  4 u16 flags  6 u16 command  8 u64 cookie  16 u64 offset  24 u32 length  28 payload of a WRITE
const REQUEST_BYTES = 28
const TWO_TO_32 = 4294967296

/** Requests of one connection at a time; the next one waits in the socket. */
const MAX_REQUESTS = 256
/**
 * With more replies than this to send, the next request waits until they are gone. What a fast device answers at once is
 * then still in the processor's cache when it is sent, and its slabs are soon free for the next.
 */
const MAX_UNSENT_BYTES = 1024 * 1024
/** A client that takes its replies as fast as the device gives them gets this many rounds of them; then it is the others' turn. */
const ROUNDS_PER_TURN = 4

/**
 * One connection in the transmission phase: reads requests as long as there is room for them, and decides when it is over.
 *
 * What is in flight, and what the client has not taken of its replies, is bounded. Beyond that nothing is received.
 */
export class Transmission implements Flushable {
  readonly #runner: RequestRunner
  readonly #payload: WritePayload
  /** There was no room for more: the stream is paused. */
  #waiting = false
  #wakePlanned = false
  /** The turn of the reactor in which replies were last sent to the end, and how often they were in it. */
  #turn = 0
  #rounds = 0
  /** `closing`: new requests are refused. `ended`: the client has said that there are none. Both end when all are answered. */
  #state: 'open' | 'closing' | 'ended' | 'over' = 'open'

  constructor(
    readonly stream: ByteStream,
    device: BlockDevice,
    agreement: Agreement,
    readonly budget: Budget,
  ) {
    this.#runner = new RequestRunner(stream, device, agreement, () => this.#progressed())
    this.#payload = new WritePayload(stream, this.#runner)
  }

  /** Handles all that has arrived, as far as there is room for it. Throws PROTOCOL when the client breaks the rules. */
  handleInput(): void {
    const {stream} = this
    while (!stream.closed && !stream.inputHeld) {
      if (this.#payload.isArriving) {
        if (!this.#hasRoomForPiece()) return this.#wait()
        if (!this.#payload.advance()) return
      } else if (this.#state === 'open' || this.#state === 'closing') {
        if (stream.available < REQUEST_BYTES) return
        if (!this.#takeRequest()) return this.#wait()
      } else {
        // Nothing may follow DISC; what does is not looked at.
        stream.start = stream.end
        return
      }
    }
  }

  /** All requests are answered, except a WRITE whose payload is still arriving, of which nothing is under way. */
  get isQuiet(): boolean {
    return this.#state === 'open' && this.#runner.requests === (this.#payload.isArriving ? 1 : 0) && this.#runner.bytes === 0
  }

  /** What another process needs to go on, when it is quiet: the WRITE whose payload is arriving. */
  arriving(): ArrivingWrite | undefined {
    return this.#payload.state()
  }

  /** Goes on where another process has stopped, before any input is handled. */
  goOn(write: ArrivingWrite): void {
    this.#payload.goOn(this.#runner.take(), write)
  }

  /** The kernel has taken all that was queued. */
  handleDrain(): void {
    if (this.#turn !== reactor.now) {
      this.#turn = reactor.now
      this.#rounds = 0
    }
    if (++this.#rounds < ROUNDS_PER_TURN || this.#wakePlanned) {
      this.#progressed()
    } else {
      this.#wakePlanned = true
      reactor.soon(() => this.flush())
    }
  }

  /** Finishes what has been started, refuses what comes in from now on, and ends the stream when all is answered. */
  close(): void {
    if (this.#state === 'open') this.#state = 'closing'
    this.#endIfDone()
  }

  /** Tells the client that requests in flight will not be answered any more. The stream is to be ended next. */
  refuseAll(): void {
    this.#runner.refuseAll()
  }

  /** Called by the reactor at the end of a turn in which something was finished that others wait for. */
  flush(): void {
    this.#wakePlanned = false
    if (this.stream.closed) return
    this.#waiting = false
    try {
      // Before the stream receives again: it may hold more than it lets a handler leave.
      this.handleInput()
    } catch (error) {
      if (!(error instanceof LonghornError)) throw error
      this.stream.destroy(error)
    }
    if (!this.#waiting) this.stream.resume()
  }

  /** False when there is no room for it. */
  #takeRequest(): boolean {
    const {input, start} = this.stream
    if (input.readUInt32BE(start) !== REQUEST_MAGIC) throw new LonghornError('PROTOCOL', 'a request without its magic number')
    const command = input.readUInt16BE(start + 6)
    const length = input.readUInt32BE(start + 24)
    if (!this.#hasRoomFor(costOf(command, length))) return false
    this.stream.start = start + REQUEST_BYTES
    reactor.busyPoll.messages++
    if (command === COMMAND.DISC) {
      this.#state = 'ended'
      this.#endIfDone()
      return true
    }
    const request = this.#runner.take()
    request.command = command
    request.flags = input.readUInt16BE(start + 4)
    request.cookieHigh = input.readInt32BE(start + 8)
    request.cookieLow = input.readInt32BE(start + 12)
    request.offset = input.readUInt32BE(start + 16) * TWO_TO_32 + input.readUInt32BE(start + 20)
    request.length = length
    if (command === COMMAND.WRITE) this.#payload.begin(request)
    if (this.#state === 'open') this.#runner.start(request)
    else this.#runner.refuse(request, NBD_ERROR.ESHUTDOWN)
    return true
  }

  #hasRoomFor(cost: number): boolean {
    const {requests, bytes} = this.#runner
    const unsent = this.stream.output.bytes
    if (unsent <= MAX_UNSENT_BYTES && bytes + unsent + cost <= this.budget.bytesPerConnection) return requests < MAX_REQUESTS
    // Whatever one request costs, it can be had when there is nothing else.
    return requests === 0 && unsent === 0
  }

  #hasRoomForPiece(): boolean {
    return this.#runner.bytes + this.stream.output.bytes <= this.budget.bytesPerConnection
  }

  #wait(): void {
    this.#waiting = true
    this.stream.pause()
  }

  #progressed(): void {
    if (this.#waiting && !this.#wakePlanned) {
      this.#wakePlanned = true
      reactor.flushSoon(this)
    }
    if (this.#state !== 'open') this.#endIfDone()
  }

  #endIfDone(): void {
    if (this.#state === 'open' || this.#state === 'over' || this.#runner.requests > 0) return
    this.#state = 'over'
    this.stream.endAfterFlush()
  }
}

/** Memory that a request will need, as far as its header tells. A WRITE is charged for what arrives of it. */
function costOf(command: number, length: number): number {
  switch (command) {
    case COMMAND.READ:
      return Math.min(length, MAX_PAYLOAD_BYTES)
    case COMMAND.BLOCK_STATUS:
      return STATUS_BYTES
    default:
      return 0
  }
}
