import type {Slab} from '../../../lib/net/slab.js'
import {Io} from '../../../protocol/block-device.js'

/** One request of a client, from its header to its reply. */
export class Request {
  command = 0
  flags = 0
  /** The client's name for it: eight bytes that come back in the reply, in two halves. */
  cookieHigh = 0
  cookieLow = 0
  offset = 0
  length = 0
  /** Pieces under way, and one more while the payload of a WRITE is arriving. */
  pending = 0
  /** The first error, an errno; 0 when there is none. */
  error = 0
  /** What to say about the error to people; empty for the usual words. */
  errorText = ''
  /** The end of the reply is queued. */
  replied = false
  /** A FLUSH has to follow the last piece: FUA of a write that was cut up. */
  flushAfter = false
  /** In use: false while it lies in the pool. */
  active = false
  /** All pieces, in order, of a READ whose data must be sent as one block; empty for everything else. */
  readonly gathered: Piece[] = []
}

/** Who sent a piece to the device. */
export interface PieceOwner {
  pieceData(piece: Piece, slab: Slab, start: number): void
  pieceDone(piece: Piece, error: number): void
}

/** A request to the device that serves a part of a client's request, or all of it. */
export class Piece extends Io {
  request: Request
  /** Bytes of memory that it was charged with. */
  charged = 0
  /** Of a gathered READ: where its data lies; retained. */
  slab: Slab | undefined
  start = 0

  constructor(
    readonly owner: PieceOwner,
    request: Request,
  ) {
    super()
    this.request = request
  }

  override onData(slab: Slab, start: number): void {
    this.owner.pieceData(this, slab, start)
  }

  override onDone(error: number): void {
    this.owner.pieceDone(this, error)
  }
}

/**
 * The requests and pieces of one connection, for reuse. What is with the device stays out of the pool until the device
 * has finished it, also when the client is long gone. Their number is bounded by the admission of requests.
 */
export class RequestPool {
  readonly #requests: Request[] = []
  readonly #pieces: Piece[] = []
  readonly #all: Request[] = []

  constructor(readonly owner: PieceOwner) {}

  takeRequest(): Request {
    const request = this.#requests.pop() ?? this.#newRequest()
    request.active = true
    request.error = 0
    request.errorText = ''
    request.replied = false
    request.flushAfter = false
    return request
  }

  giveRequest(request: Request): void {
    request.active = false
    this.#requests.push(request)
  }

  /** A piece whose fields are whatever its last user left in them. */
  takePiece(request: Request): Piece {
    const piece = this.#pieces.pop()
    if (piece === undefined) return new Piece(this.owner, request)
    piece.request = request
    return piece
  }

  givePiece(piece: Piece): void {
    this.#pieces.push(piece)
  }

  /** The requests that have no reply yet. */
  activeRequests(): Request[] {
    return this.#all.filter(request => request.active)
  }

  #newRequest(): Request {
    const request = new Request()
    this.#all.push(request)
    return request
  }
}
