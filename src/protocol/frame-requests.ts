import type {ByteStream} from '../lib/net/byte-stream.js'
import {Slab, SLAB_BYTES, SlabPool} from '../lib/net/slab.js'
import {ERRNO, inRange, MAX_IO_BYTES, OP, type BlockDevice, type Op} from './block-device.js'
import {errorText, FRAME} from './frame.js'
import {FrameIo, type FrameIoOwner} from './frame-io.js'
import {writeReply, writeText} from './frame-replies.js'

/** Largest READ that is answered; upstream's initiators stay below 1 MiB. Writes of any size are taken as they arrive. */
export const MAX_READ_BYTES = 32 * 1024 * 1024

/** The frame type that reports a full disk: ENOSPC towards an initiator, ERROR towards an engine (upstream's knows no other). */
export type NoSpaceType = typeof FRAME.ENOSPC | typeof FRAME.ERROR

/** Carries out the requests of one connection: cuts large ones into pieces for the device and sends the replies, in any order. */
export class FrameRequests implements FrameIoOwner {
  /** Requests without a reply, and pieces. */
  inFlight = 0
  /** Bytes of data on their way to or from the device. */
  bytes = 0
  readonly #free: FrameIo[] = []

  constructor(
    readonly stream: ByteStream,
    /** What requests go to from now on. */
    public device: BlockDevice,
    readonly noSpaceType: NoSpaceType,
    /** Called when the device has moved data or done something: `inFlight` or `bytes` may have become less. */
    readonly onProgress: () => void,
  ) {}

  /** An object for a request that has arrived; to be filled in and started. */
  take(): FrameIo {
    this.inFlight++
    return this.#free.pop() ?? new FrameIo(this)
  }

  /** Starts what is one request to the device however long it is, or a READ that is not cut. */
  startWhole(io: FrameIo, op: Op): void {
    io.op = op
    io.offset = io.frameOffset
    io.length = io.frameSize
    io.noUnmap = io.type === FRAME.WRITE_ZEROES_ALLOCATED
    io.fua = false
    if (!inRange(io.offset, io.length, this.device.sizeBytes)) this.finish(io, ERRNO.EINVAL)
    else if (io.length === 0 && op !== OP.FLUSH) this.finish(io, 0)
    else this.submit(io)
  }

  startRead(io: FrameIo): void {
    const length = io.frameSize
    if (length > MAX_READ_BYTES || !inRange(io.frameOffset, length, this.device.sizeBytes)) {
      this.finish(io, ERRNO.EINVAL)
      return
    }
    if (length <= MAX_IO_BYTES && length > 0) {
      this.startWhole(io, OP.READ)
      return
    }
    // Put together before it is sent, so that an error half-way can still be reported.
    io.assembly = length === 0 ? undefined : new Slab(length, oneOff)
    io.pieces = 1
    for (let done = 0; done < length; done += MAX_IO_BYTES) {
      this.submitPiece(io, OP.READ, io.frameOffset + done, Math.min(MAX_IO_BYTES, length - done))
    }
    this.piecesComplete(io)
  }

  /** Gives a part of a large READ or WRITE to the device; `slab` and `start` as BlockDevice.submit() has them. */
  submitPiece(parent: FrameIo, op: Op, offset: number, length: number, slab?: Slab, start?: number): void {
    const piece = this.take()
    piece.parent = parent
    piece.op = op
    piece.offset = offset
    piece.length = length
    piece.fua = parent.type === FRAME.WRITE_DURABLE
    piece.atomic = false
    piece.continued = offset !== parent.frameOffset
    parent.pieces++
    this.submit(piece, slab, start)
  }

  /** Gives a request to the device, whose range has been checked. */
  submit(io: FrameIo, slab?: Slab, start?: number): void {
    if (io.op <= OP.WRITE) this.bytes += io.length
    this.device.submit(io, slab, start)
  }

  /** No more pieces are to come; called by the piece that was counted for that. */
  piecesComplete(parent: FrameIo): void {
    if (--parent.pieces > 0) return
    const {assembly, error} = parent
    parent.assembly = undefined
    if (error === 0 && assembly !== undefined && !this.stream.closed) {
      writeReply(this.stream, parent, FRAME.RESPONSE, parent.frameSize, parent.frameSize)
      this.stream.output.push(assembly, 0, parent.frameSize)
      this.recycle(parent)
    } else {
      this.finish(parent, error)
    }
    assembly?.release()
  }

  /** Called by FrameIo. */
  pieceData(io: FrameIo, slab: Slab, start: number): void {
    const assembly = io.parent?.assembly
    if (assembly !== undefined) {
      slab.buffer.copy(assembly.buffer, io.offset - io.parent!.frameOffset, start, start + io.length)
      return
    }
    if (this.stream.closed) return
    writeReply(this.stream, io, FRAME.RESPONSE, io.length, io.length)
    this.stream.output.pushOrCopy(slab, start, io.length)
  }

  /** Called by FrameIo. */
  pieceDone(io: FrameIo, error: number): void {
    if (io.op <= OP.WRITE) this.bytes -= io.length
    const {parent} = io
    if (parent !== undefined) {
      if (error !== 0 && parent.error === 0) parent.error = error
      this.recycle(io)
      this.piecesComplete(parent)
    } else if (error === 0 && io.op === OP.READ) {
      // pieceData() has answered.
      this.recycle(io)
    } else {
      this.finish(io, error)
    }
    this.onProgress()
  }

  /** Answers a request without data; `error` is 0 or an errno. */
  finish(io: FrameIo, error: number): void {
    if (!this.stream.closed) {
      if (error === 0) writeReply(this.stream, io, FRAME.RESPONSE, io.type === FRAME.UNMAP ? 0 : io.frameSize, 0)
      else writeText(this.stream, io, error === ERRNO.ENOSPC ? this.noSpaceType : FRAME.ERROR, errorText(error))
    }
    this.recycle(io)
  }

  /** Takes back the object of a request that is answered, or gets no answer. */
  recycle(io: FrameIo): void {
    this.inFlight--
    io.parent = undefined
    io.error = 0
    io.continued = false
    this.#free.push(io)
  }
}

/** For buffers of a size of their own: nothing is kept. */
const oneOff = new SlabPool(SLAB_BYTES, 0)
