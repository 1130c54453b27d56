import type {Slab} from '../lib/net/slab.js'
import {Io} from './block-device.js'

/** Who has given a request to the device. */
export interface FrameIoOwner {
  pieceData(io: FrameIo, slab: Slab, start: number): void
  pieceDone(io: FrameIo, error: number): void
}

/** A request of a connection, or one piece of a large one. Pooled per connection. */
export class FrameIo extends Io {
  sequence = 0
  /** What the frame asked for. */
  type = 0
  frameOffset = 0
  frameSize = 0
  /** The request that this is a piece of. */
  parent: FrameIo | undefined
  /** On a parent: pieces in flight, plus one while more are to come. */
  pieces = 0
  /** On the parent of a large READ: where the pieces are put together. */
  assembly: Slab | undefined

  constructor(readonly owner: FrameIoOwner) {
    super()
  }

  override onData(slab: Slab, start: number): void {
    this.owner.pieceData(this, slab, start)
  }

  override onDone(error: number): void {
    this.owner.pieceDone(this, error)
  }
}
