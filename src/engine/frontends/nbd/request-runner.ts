import {messageOf} from '../../../lib/errors.js'
import type {ByteStream} from '../../../lib/net/byte-stream.js'
import type {Slab} from '../../../lib/net/slab.js'
import {OP, type BlockDevice, type Op} from '../../../protocol/block-device.js'
import {pieceCount, pieceLength} from '../cutting.js'
import {ALLOCATION_ID, type Agreement} from './handshake.js'
import {errorText, nbdError, problemOf} from './problem.js'
import {COMMAND, COMMAND_FLAG, NBD_ERROR} from './protocol.js'
import {writeBlockStatus, writeDataHeader, writeDone, writeError, writeSimpleReply} from './replies.js'
import {RequestPool, type Piece, type PieceOwner, type Request} from './requests.js'

/** What a question for block status is taken to cost: the extents of the answer. */
export const STATUS_BYTES = 1024 * 1024

/**
 * Data is sent from where the device received it, which keeps the whole slab around it in use until the client takes it.
 * With this much unsent, small data is copied instead: otherwise a client that does not read would hold a slab per block.
 */
const COPY_ABOVE_BYTES = 256 * 1024
const COPY_AT_MOST_BYTES = 32 * 1024

/** What a text of unknown length is cut to: the protocol allows 4096 bytes. */
const MAX_TEXT_CHARS = 1000

/** Carries out the requests of one connection: cuts them into pieces for the device and sends the replies, in any order. */
export class RequestRunner implements PieceOwner {
  /** Requests without a reply. */
  requests = 0
  /** Bytes of data on their way to or from the device, or held until the rest of a reply is there. */
  bytes = 0
  readonly #pool = new RequestPool(this)

  constructor(
    readonly stream: ByteStream,
    readonly device: BlockDevice,
    readonly agreement: Agreement,
    /** Called whenever `requests` or `bytes` have become less. */
    readonly onProgress: () => void,
  ) {}

  /** An object for a request that has arrived; to be filled in and started. */
  take(): Request {
    this.requests++
    return this.#pool.takeRequest()
  }

  /** Starts a request. The payload of a WRITE, also of one that is refused here, follows with writePiece() and payloadEnded(). */
  start(request: Request): void {
    const problem = problemOf(request, this.agreement, this.device.sizeBytes)
    if (problem !== undefined) {
      this.refuse(request, problem.error, problem.text)
      return
    }
    switch (request.command) {
      case COMMAND.READ:
        this.#read(request)
        return
      case COMMAND.WRITE:
        request.pending = 1
        return
      case COMMAND.BLOCK_STATUS:
        void this.#blockStatus(request)
        return
      case COMMAND.FLUSH:
        this.#single(request, OP.FLUSH)
        return
      case COMMAND.TRIM:
        this.#single(request, OP.DISCARD)
        return
      default:
        this.#single(request, OP.WRITE_ZEROES)
    }
  }

  /** Answers a request with an NBD error without asking the device; a WRITE only after its payload. */
  refuse(request: Request, error: number, text = ''): void {
    request.error = error
    request.errorText = text
    if (request.command === COMMAND.WRITE) request.pending = 1
    else this.#finish(request)
  }

  /** A part of a payload. */
  writePiece(request: Request, offset: number, length: number, slab: Slab, start: number): void {
    const piece = this.#piece(request, OP.WRITE, offset, length)
    // One that is cut up is made durable as a whole, by a single flush behind its last piece.
    const durable = (request.flags & COMMAND_FLAG.FUA) !== 0
    piece.fua = durable && length === request.length
    request.flushAfter = durable && length !== request.length
    request.pending++
    this.#charge(piece)
    this.device.submit(piece, slab, start)
  }

  /** All of a WRITE's payload has been handed over. */
  payloadEnded(request: Request): void {
    if (--request.pending === 0) this.#finish(request)
  }

  /** Tells the client that what is in flight will not be answered any more. The stream is to be ended next. */
  refuseAll(): void {
    for (const request of this.#pool.activeRequests()) {
      if (!request.replied) this.#reply(request, NBD_ERROR.ESHUTDOWN, '')
      request.replied = true
    }
  }

  pieceData(piece: Piece, slab: Slab, start: number): void {
    const {request} = piece
    if (request.gathered.length > 0) {
      slab.retain()
      piece.slab = slab
      piece.start = start
      return
    }
    if (this.stream.closed || request.error !== 0) return
    const {output} = this.stream
    // This piece can no longer fail, so with the last one the whole request has gone well.
    request.replied = request.pending === 1
    if (this.agreement.structured) writeDataHeader(output, request, piece.offset, piece.length, request.replied)
    else writeSimpleReply(output, request, NBD_ERROR.OK)
    if (piece.length <= COPY_AT_MOST_BYTES && output.bytes > COPY_ABOVE_BYTES) {
      slab.buffer.copy(output.reserve(piece.length).buffer, output.reservedAt, start, start + piece.length)
      output.commit(piece.length)
    } else {
      output.push(slab, start, piece.length)
    }
    this.stream.flushSoon()
  }

  pieceDone(piece: Piece, error: number): void {
    const {request} = piece
    if (error !== 0 && request.error === 0) request.error = nbdError(error)
    if (request.gathered.length === 0) {
      this.bytes -= piece.charged
      this.#pool.givePiece(piece)
    }
    if (--request.pending === 0) this.#finish(request)
    else this.onProgress()
  }

  #read(request: Request): void {
    let {offset, length: left} = request
    const count = pieceCount(offset, left)
    // All counted beforehand: the first pieces may be finished before the last is submitted.
    request.pending = count
    if (left === 0) {
      this.#finish(request)
    } else if (count === 1) {
      this.#readPiece(request, offset, left)
    } else if (!this.agreement.structured || (request.flags & COMMAND_FLAG.DF) !== 0) {
      this.#readGathered(request)
    } else {
      for (let index = 0; index < count; index++) {
        const length = pieceLength(offset, left)
        this.#readPiece(request, offset, length)
        offset += length
        left -= length
      }
    }
  }

  #readPiece(request: Request, offset: number, length: number): void {
    const piece = this.#piece(request, OP.READ, offset, length)
    this.#charge(piece)
    this.device.submit(piece)
  }

  /** The reply must be one block behind its header, and the header says whether there was an error: all pieces must be there first. */
  #readGathered(request: Request): void {
    let {offset, length: left} = request
    const pieces = request.gathered
    while (left > 0) {
      const piece = this.#piece(request, OP.READ, offset, pieceLength(offset, left))
      this.#charge(piece)
      pieces.push(piece)
      offset += piece.length
      left -= piece.length
    }
    const last = pieces.length - 1
    for (let index = 0; index < last; index++) this.device.submit(pieces[index]!)
    // The array is emptied when this one is done.
    this.device.submit(pieces[last]!)
  }

  /** FLUSH, TRIM and WRITE_ZEROES are one piece however long they are: no data moves. */
  #single(request: Request, op: Op): void {
    if (request.length === 0 && op !== OP.FLUSH) {
      this.#finish(request)
      return
    }
    const piece = this.#piece(request, op, request.offset, request.length)
    piece.fua = op !== OP.FLUSH && (request.flags & COMMAND_FLAG.FUA) !== 0
    piece.noUnmap = (request.flags & COMMAND_FLAG.NO_HOLE) !== 0
    request.pending = 1
    this.device.submit(piece)
  }

  async #blockStatus(request: Request): Promise<void> {
    this.bytes += STATUS_BYTES
    const most = (request.flags & COMMAND_FLAG.REQ_ONE) !== 0 ? 1 : undefined
    try {
      const extents = await this.device.blockStatus(request.offset, request.length)
      if (!this.stream.closed && !request.replied) writeBlockStatus(this.stream.output, request, ALLOCATION_ID, extents, most)
      request.replied = true
      this.stream.flushSoon()
    } catch (error) {
      request.error = NBD_ERROR.EIO
      request.errorText = messageOf(error).slice(0, MAX_TEXT_CHARS)
    }
    this.bytes -= STATUS_BYTES
    this.#finish(request)
  }

  #piece(request: Request, op: Op, offset: number, length: number): Piece {
    const piece = this.#pool.takePiece(request)
    piece.op = op
    piece.offset = offset
    piece.length = length
    piece.fua = false
    piece.noUnmap = false
    piece.charged = 0
    return piece
  }

  #charge(piece: Piece): void {
    piece.charged = piece.length
    this.bytes += piece.length
  }

  /** The last piece is done, or there was none. */
  #finish(request: Request): void {
    if (request.flushAfter && request.error === 0) {
      request.flushAfter = false
      request.pending = 1
      this.device.submit(this.#piece(request, OP.FLUSH, 0, 0))
      return
    }
    if (!request.replied && !this.stream.closed) this.#reply(request, request.error, request.errorText)
    if (request.gathered.length > 0) this.#forgetGathered(request)
    this.requests--
    this.#pool.giveRequest(request)
    this.onProgress()
  }

  #reply(request: Request, error: number, text: string): void {
    const {output} = this.stream
    const {structured} = this.agreement
    if (error !== NBD_ERROR.OK && structured) writeError(output, request, error, text || errorText(error))
    else if (error === NBD_ERROR.OK && request.gathered.length > 0) this.#sendGathered(request)
    else if (structured) writeDone(output, request)
    else writeSimpleReply(output, request, error)
    this.stream.flushSoon()
  }

  #sendGathered(request: Request): void {
    const {output} = this.stream
    if (this.agreement.structured) writeDataHeader(output, request, request.offset, request.length, true)
    else writeSimpleReply(output, request, NBD_ERROR.OK)
    for (const piece of request.gathered) output.push(piece.slab!, piece.start, piece.length)
    // Ours are released next, and somebody may take and fill a released slab before this turn's output is sent.
    output.hold()
  }

  #forgetGathered(request: Request): void {
    for (const piece of request.gathered) {
      piece.slab?.release()
      piece.slab = undefined
      this.bytes -= piece.charged
      this.#pool.givePiece(piece)
    }
    request.gathered.length = 0
  }
}
