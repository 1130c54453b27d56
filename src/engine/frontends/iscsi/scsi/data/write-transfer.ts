import type {Slab} from '../../../../../lib/net/slab.js'
import {OP} from '../../../../../protocol/block-device.js'
import {STATUS, type DataSink, type ScsiTask} from '../../scsi-task.js'
import {conditionOf} from '../check-condition.js'
import {BLOCK_BYTES} from '../geometry.js'
import type {DataPath} from './data-path.js'
import type {Piece, PieceOwner} from './piece.js'

/** Passes each piece of a command's data to the command's own transfer. One for all. */
export const WRITE_SINK: DataSink = {
  onPiece: (task, slab, start, length, offset) => (task.state as WriteTransfer).piece(slab, start, length, offset),
  onEnd: task => (task.state as WriteTransfer).ended(),
}

/** A WRITE on its way: each part of its data goes to the device as it arrives. Reused. */
export class WriteTransfer implements PieceOwner {
  #task: ScsiTask | undefined
  #base = 0
  #length = 0
  #fua = false
  /** Pieces under way, and one more while data is arriving. */
  #pending = 0
  #flushAfter = false
  #error = 0
  #errorAt = Infinity

  constructor(readonly path: DataPath) {}

  start(task: ScsiTask, offset: number, length: number, fua: boolean): void {
    this.#task = task
    this.#base = offset
    this.#length = length
    this.#fua = fua
    this.#pending = 1
    this.#flushAfter = false
    this.#error = 0
    this.#errorAt = Infinity
    task.state = this
    task.receiveData(length, WRITE_SINK)
  }

  piece(slab: Slab, start: number, length: number, offset: number): void {
    // A command that has failed changes no more: its data was perhaps refused because all of the disk is being erased.
    if (this.#error !== 0) return
    const piece = this.path.pieces.take(this)
    piece.op = OP.WRITE
    piece.offset = this.#base + offset
    piece.length = length
    // One that arrives in pieces is made durable as a whole, by a single flush behind the last.
    piece.fua = this.#fua && length === this.#length
    this.#flushAfter = this.#fua && !piece.fua
    this.#pending++
    this.path.gate.submit(piece, slab, start)
  }

  /** All of the data is here, or all that there will be. */
  ended(): void {
    this.#oneLess()
  }

  pieceData(): void {
    throw new Error('a write has no data to give')
  }

  pieceDone(piece: Piece, error: number): void {
    if (error !== 0 && piece.offset < this.#errorAt) {
      this.#error = error
      this.#errorAt = piece.op === OP.FLUSH ? this.#base : piece.offset
    }
    this.#oneLess()
  }

  #oneLess(): void {
    if (--this.#pending > 0) return
    if (this.#flushAfter && this.#error === 0 && !this.#task!.aborted) this.#flush()
    else this.#finish()
  }

  #flush(): void {
    const piece = this.path.pieces.take(this)
    piece.op = OP.FLUSH
    piece.offset = 0
    piece.length = 0
    this.#flushAfter = false
    this.#pending = 1
    this.path.gate.submit(piece)
  }

  #finish(): void {
    const task = this.#task!
    this.#task = undefined
    this.path.giveWrite(this)
    if (this.#error === 0) task.finish(STATUS.GOOD, undefined, this.#length)
    else this.path.fail(task, conditionOf(this.#error, true), {information: Math.floor(this.#errorAt / BLOCK_BYTES)}, this.#length)
  }
}
