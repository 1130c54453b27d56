import type {Slab} from '../../../../../lib/net/slab.js'
import {GatedIo, type DeviceGate} from './device-gate.js'

/** Who sent a piece to the device. */
export interface PieceOwner {
  pieceData(piece: Piece, slab: Slab, start: number): void
  pieceDone(piece: Piece, error: number): void
}

/** A request to the device that serves a part of a command, or all of it. Reused. */
export class Piece extends GatedIo {
  owner: PieceOwner | undefined

  constructor(readonly pool: PiecePool) {
    super()
  }

  override onData(slab: Slab, start: number): void {
    this.owner!.pieceData(this, slab, start)
  }

  override onDone(error: number): void {
    const {owner, pool} = this
    pool.gate.done(this)
    owner!.pieceDone(this, error)
    this.owner = undefined
    pool.give(this)
  }
}

/** The pieces of one disk, for reuse. Their number is bounded by the admission of commands, in the transport. */
export class PiecePool {
  readonly #free: Piece[] = []

  constructor(readonly gate: DeviceGate) {}

  /** A piece whose operation, range and flags are to be set. */
  take(owner: PieceOwner): Piece {
    const piece = this.#free.pop() ?? new Piece(this)
    piece.owner = owner
    piece.fua = false
    piece.noUnmap = false
    return piece
  }

  /** Called by Piece.onDone() only. */
  give(piece: Piece): void {
    this.#free.push(piece)
  }
}
