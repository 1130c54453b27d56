import type {ByteStream} from '../lib/net/byte-stream.js'
import {MAX_IO_BYTES, OP} from './block-device.js'
import {FRAME} from './frame.js'
import type {FrameIo} from './frame-io.js'
import type {FrameRequests} from './frame-requests.js'
import type {FrameSlowPath} from './frame-slow-path.js'

/** A WRITE of which a part has arrived, as plain data. Bytes. */
export interface ArrivingFrameWrite {
  readonly sequence: number
  readonly type: number
  readonly offset: number
  readonly size: number
  /** What has not been handed over. */
  readonly left: number
  readonly error: number
}

/** A piece of a write is passed on when it has at least this many bytes, or is the last. */
const LEAST_PIECE_BYTES = 64 * 1024

/**
 * The payload of the WRITE whose header was read last, while it arrives. Most of a large write is with the device while the rest is
 * still being sent, and none of it is collected outside the stream's slab.
 */
export class FrameWritePayload {
  #io: FrameIo | undefined
  /** How much of it is still to come. */
  #left = 0

  constructor(
    readonly stream: ByteStream,
    readonly requests: FrameRequests,
    readonly slow: FrameSlowPath,
  ) {}

  /** The request whose payload is arriving. */
  get request(): FrameIo | undefined {
    return this.#io
  }

  /** `io` is a write whose range has been checked. */
  begin(io: FrameIo): void {
    io.pieces = 1
    this.#io = io
    this.#left = io.frameSize
    if (io.frameSize === 0) this.#end(io)
  }

  /** Of a payload of which no piece is under way. */
  state(): ArrivingFrameWrite | undefined {
    const io = this.#io
    if (io === undefined) return undefined
    const {sequence, type, frameOffset: offset, frameSize: size, error} = io
    return {sequence, type, offset, size, left: this.#left, error}
  }

  /** Goes on with one that another process has begun; `io` is an object to be filled in. */
  goOn(io: FrameIo, {sequence, type, offset, size, left, error}: ArrivingFrameWrite): void {
    io.sequence = sequence
    io.type = type
    io.frameOffset = offset
    io.frameSize = size
    io.error = error
    io.pieces = 1
    this.#io = io
    this.#left = left
  }

  /** Passes on what has arrived; false when it should wait for more. */
  advance(): boolean {
    const {stream} = this
    const io = this.#io!
    const left = this.#left
    const available = stream.available
    if (available < left && (available < LEAST_PIECE_BYTES || isWhole(io.type))) return false
    const offset = io.frameOffset + io.frameSize - left
    const start = stream.start
    if (left === io.frameSize && left <= MAX_IO_BYTES && available >= left) {
      // All of it, in one piece: the usual case.
      this.#io = undefined
      stream.start += left
      if (io.type === FRAME.REPAIR) {
        this.slow.repair(io, stream.slab, start)
        return true
      }
      io.op = OP.WRITE
      io.offset = offset
      io.length = left
      io.fua = io.type === FRAME.WRITE_DURABLE
      io.atomic = io.type === FRAME.WRITE_ATOMIC
      this.requests.submit(io, stream.slab, start)
      return true
    }
    let length = Math.min(left, available, MAX_IO_BYTES)
    // Pieces end on a block, so that no block is written in two halves.
    if (length < left) length -= (offset + length) % 4096
    stream.start += length
    this.#left -= length
    const last = this.#left === 0
    this.requests.submitPiece(io, OP.WRITE, offset, length, stream.slab, start)
    if (last) this.#end(io)
    return true
  }

  #end(io: FrameIo): void {
    this.#io = undefined
    this.requests.piecesComplete(io)
  }
}

/** Types whose payload is taken as one piece, or refused. */
export function isWhole(type: number): boolean {
  return type === FRAME.WRITE_ATOMIC || type === FRAME.REPAIR
}
