import {MAX_UNIT_BYTES, type ByteStream} from '../../../lib/net/byte-stream.js'
import {arrivedPieceLength} from '../cutting.js'
import type {RequestRunner} from './request-runner.js'
import {COMMAND} from './protocol.js'
import type {Request} from './requests.js'

/** A WRITE of which a part has arrived, as plain data. */
export interface ArrivingWrite {
  readonly flags: number
  readonly cookie: readonly [high: number, low: number]
  readonly offset: number
  readonly length: number
  /** Bytes that have not been handed over. */
  readonly left: number
  readonly error: number
  readonly errorText: string
  readonly flushAfter: boolean
}

/**
 * Of a payload that has not arrived to its end, this much is waited for: a client's socket buffer holds less than that, and to wake
 * every replica for each filling costs more than the wait (bench data-path, 1 MiB sequential write).
 */
const BATCH_BYTES = MAX_UNIT_BYTES

/**
 * The payload of the WRITE whose header was read last, while it arrives. It is handed over batch by batch, in pieces: most of a large
 * write is on its way to the replicas while the rest is still being sent, and none of it is collected outside the stream's slab.
 */
export class WritePayload {
  #request: Request | undefined
  /** Where the next byte belongs. */
  #offset = 0
  /** Bytes of payload that have not been handed over. */
  #left = 0
  /** What has arrived is being handed over. */
  #handing = false

  constructor(
    readonly stream: ByteStream,
    readonly runner: RequestRunner,
  ) {}

  get isArriving(): boolean {
    return this.#request !== undefined
  }

  begin(request: Request): void {
    this.#request = request
    this.#offset = request.offset
    this.#left = request.length
  }

  /** Of a payload of which no piece is under way. */
  state(): ArrivingWrite | undefined {
    const request = this.#request
    if (request === undefined) return undefined
    const {flags, cookieHigh, cookieLow, offset, length, error, errorText, flushAfter} = request
    return {flags, cookie: [cookieHigh, cookieLow], offset, length, left: this.#left, error, errorText, flushAfter}
  }

  /** Goes on with one that another process has begun; `request` is an object to be filled in. */
  goOn(request: Request, {cookie, left, ...rest}: ArrivingWrite): void {
    Object.assign(request, rest)
    request.command = COMMAND.WRITE
    ;[request.cookieHigh, request.cookieLow] = cookie
    // The payload's own; pieces come on top.
    request.pending = 1
    this.begin(request)
    this.#left = left
    this.#offset = request.offset + request.length - left
  }

  /** Hands over one piece of what has arrived, or skips it if the write has failed already. False when more has to arrive first. */
  advance(): boolean {
    const {stream} = this
    const request = this.#request!
    if (this.#left > 0) {
      const arrived = Math.min(this.#left, stream.available)
      if (!this.#handing && arrived < Math.min(this.#left, BATCH_BYTES)) return false
      const length = request.error === 0 ? arrivedPieceLength(this.#offset, this.#left, arrived) : arrived
      this.#handing = length > 0
      if (length === 0) return false
      const {slab, start} = stream
      const offset = this.#offset
      stream.start += length
      this.#offset += length
      this.#left -= length
      if (request.error === 0) this.runner.writePiece(request, offset, length, slab, start)
    }
    if (this.#left === 0) {
      this.#request = undefined
      this.#handing = false
      this.runner.payloadEnded(request)
    }
    return true
  }
}
