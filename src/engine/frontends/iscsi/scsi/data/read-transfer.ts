import type {Slab} from '../../../../../lib/net/slab.js'
import {OP} from '../../../../../protocol/block-device.js'
import {STATUS, type ScsiTask} from '../../scsi-task.js'
import {conditionOf} from '../check-condition.js'
import {BLOCK_BYTES} from '../geometry.js'
import {pieceLength} from '../../../cutting.js'
import type {DataPath} from './data-path.js'
import type {Piece, PieceOwner} from './piece.js'

/** Pieces of one command that the device has at a time: 2 MiB. More would only take turns away from others. */
const WINDOW = 16

/** A READ on its way: cut into pieces whose data is sent as it arrives, in any order. Reused. */
export class ReadTransfer implements PieceOwner {
  #task: ScsiTask | undefined
  /** First byte on the device; what offsets in the data-in buffer are relative to. */
  #base = 0
  #next = 0
  #end = 0
  /** What the CDB says; the initiator may take less. */
  #length = 0
  #inFlight = 0
  #filling = false
  /** The first error, lowest on the disk. */
  #error = 0
  #errorAt = Infinity

  constructor(readonly path: DataPath) {}

  /** `flushFirst`: FUA, what is read must be on the medium, not only in a cache. */
  start(task: ScsiTask, offset: number, length: number, flushFirst: boolean): void {
    this.#task = task
    this.#base = offset
    this.#next = offset
    // What the initiator does not take need not be read.
    this.#end = offset + Math.min(length, Math.ceil(task.expectedIn / BLOCK_BYTES) * BLOCK_BYTES)
    this.#length = length
    this.#error = 0
    this.#errorAt = Infinity
    if (flushFirst && this.#end > offset) this.#flush()
    else this.#fill()
  }

  pieceData(piece: Piece, slab: Slab, start: number): void {
    this.#task!.sendData(slab, start, piece.length, piece.offset - this.#base)
  }

  pieceDone(piece: Piece, error: number): void {
    this.#inFlight--
    if (error !== 0) this.#fail(error, piece.op === OP.FLUSH ? this.#base : piece.offset)
    if (!this.#filling) this.#fill()
  }

  #flush(): void {
    const piece = this.path.pieces.take(this)
    piece.op = OP.FLUSH
    piece.offset = 0
    piece.length = 0
    this.#inFlight++
    this.path.gate.submit(piece)
  }

  /** Keeps the window full, and ends the command when nothing is left to do. A piece may be finished before submit() returns. */
  #fill(): void {
    this.#filling = true
    const {pieces, gate} = this.path
    while (this.#next < this.#end && this.#inFlight < WINDOW && this.#error === 0 && !this.#task!.aborted) {
      const piece = pieces.take(this)
      piece.op = OP.READ
      piece.offset = this.#next
      piece.length = pieceLength(this.#next, this.#end - this.#next)
      this.#next += piece.length
      this.#inFlight++
      gate.submit(piece)
    }
    this.#filling = false
    if (this.#inFlight === 0) this.#finish()
  }

  #fail(error: number, offset: number): void {
    if (offset >= this.#errorAt) return
    this.#error = error
    this.#errorAt = offset
  }

  #finish(): void {
    const task = this.#task!
    this.#task = undefined
    this.path.giveRead(this)
    if (this.#error === 0) {
      task.finish(STATUS.GOOD, undefined, this.#length)
    } else {
      // All below is good and has been sent: initiators make use of it.
      this.path.fail(task, conditionOf(this.#error, false), {information: Math.floor(this.#errorAt / BLOCK_BYTES)}, this.#errorAt - this.#base)
    }
  }
}
