// The answering side of the data protocol: one connection of an engine to a replica, or of an initiator to the `socket` frontend.
import {isKind, LonghornError, messageOf} from '../lib/errors.js'
import {ByteStream, type StreamHandler} from '../lib/net/byte-stream.js'
import {reactor} from '../lib/net/reactor.js'
import {Slab, SLAB_BYTES, SlabPool} from '../lib/net/slab.js'
import {ERRNO, inRange, Io, MAX_IO_BYTES, OP, type BlockDevice, type Extent, type Op} from './block-device.js'
import {
  errorText,
  FRAME,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  frameOffset,
  MAX_DIGEST_RANGE,
  MAX_EXTENTS,
  MAX_HELLO_BYTES,
} from './frame.js'
import {writeDigest, writeExtents, writeRepaired, writeReply, writeText} from './frame-replies.js'

/** Largest READ that is answered; upstream's initiators stay below 1 MiB. Writes of any size are taken as they arrive. */
export const MAX_READ_BYTES = 32 * 1024 * 1024

/** A connection with this much in flight or unsent is not read from until it has less. */
const MAX_BYTES_IN_FLIGHT = 32 * 1024 * 1024
const MAX_REQUESTS_IN_FLIGHT = 1024
const MAX_BYTES_UNSENT = 4 * 1024 * 1024

/** A piece of a write is passed on when it has at least this many bytes, or is the last. */
const LEAST_PIECE_BYTES = 64 * 1024

export interface FrameServerOptions {
  readonly device: BlockDevice
  /** The frame type that reports a full disk: ENOSPC towards an initiator, ERROR towards an engine (upstream's knows no other). */
  readonly noSpaceType: typeof FRAME.ENOSPC | typeof FRAME.ERROR
  /** For messages. */
  readonly peer: string
  readonly onClose: (connection: FrameServerConnection, reason: Error | undefined) => void
  /** What a HELLO with this text is to work on from now on; throws when it may not. Undefined: HELLO is not known here. */
  readonly greet?: ((text: string) => Promise<BlockDevice>) | undefined
}

/** A request of this connection, or one piece of a large one. Pooled per connection. */
class FrameIo extends Io {
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

  constructor(readonly connection: FrameServerConnection) {
    super()
  }

  override onData(slab: Slab, start: number): void {
    this.connection.pieceData(this, slab, start)
  }

  override onDone(error: number): void {
    this.connection.pieceDone(this, error)
  }
}

/** What another process needs to go on with a connection; plain JSON. Bytes are in base64. */
export interface FrameServerState {
  readonly input: string
  readonly unsent: string
  /** Payload that is not looked at, still to come. Bytes. */
  readonly skip: number
  /** A WRITE whose payload is arriving, of which nothing is under way. */
  readonly writing?: {readonly sequence: number; readonly type: number; readonly offset: number; readonly size: number; readonly left: number; readonly error: number} | undefined
}

export class FrameServerConnection implements StreamHandler {
  readonly stream: ByteStream
  #device: BlockDevice
  readonly #options: FrameServerOptions
  readonly #free: FrameIo[] = []
  #stopped = false
  #requestsInFlight = 0
  #bytesInFlight = 0
  /** The WRITE whose payload is arriving, and how much of it is still to come. */
  #writing: FrameIo | undefined
  #writeLeft = 0
  /** Payload of a frame that has none to our knowledge, skipped. */
  #skip = 0

  /** `from`: where another process has stopped. */
  constructor(fd: number, options: FrameServerOptions, from?: FrameServerState) {
    this.#options = options
    this.#device = options.device
    this.stream = new ByteStream(fd, this, options.peer)
    if (from !== undefined) this.#goOn(from)
  }

  /** All requests are answered, except a WRITE whose payload is still arriving, of which nothing is under way. */
  get isQuiet(): boolean {
    const writing = this.#writing
    return this.#bytesInFlight === 0 && (writing === undefined ? this.#requestsInFlight === 0 : this.#requestsInFlight === 1 && writing.pieces === 1)
  }

  /** Stops to look at the socket, and says what another process needs to go on. Its input is held, and it is quiet. */
  detach(): FrameServerState {
    const {stream} = this
    stream.detach()
    const writing = this.#writing
    return {
      input: stream.unhandledInput().toString('base64'),
      unsent: stream.output.unsent().toString('base64'),
      skip: this.#skip,
      writing: writing && {sequence: writing.sequence, type: writing.type, offset: writing.frameOffset, size: writing.frameSize, left: this.#writeLeft, error: writing.error},
    }
  }

  #goOn({input, unsent, skip, writing}: FrameServerState): void {
    this.#skip = skip
    if (writing !== undefined) {
      const io = this.#takeIo()
      io.sequence = writing.sequence
      io.type = writing.type
      io.frameOffset = writing.offset
      io.frameSize = writing.size
      io.error = writing.error
      io.pieces = 1
      this.#writing = io
      this.#writeLeft = writing.left
    }
    this.stream.preload(Buffer.from(input, 'base64'), Buffer.from(unsent, 'base64'))
  }

  /** Requests that have not been answered and still will be: a write whose payload is no longer read never is. */
  get requestsInFlight(): number {
    return this.#stopped && this.#writing !== undefined ? this.#requestsInFlight - 1 : this.#requestsInFlight
  }

  get closed(): boolean {
    return this.stream.closed
  }

  /** Takes no more requests; those in flight are still answered. */
  stopReading(): void {
    this.#stopped = true
    this.stream.pause()
  }

  /** Ends the connection. Requests in flight finish on the device; their answers are dropped. Safe twice. */
  close(reason?: Error): void {
    this.stream.destroy(reason)
  }

  onInput(stream: ByteStream): void {
    while (!stream.closed) {
      if (this.#isFull()) {
        stream.pause()
        return
      }
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, stream.available)
        stream.start += skipped
        this.#skip -= skipped
        if (this.#skip > 0) return
      }
      if (this.#writing !== undefined) {
        if (!this.#takePayload(stream, this.#writing)) return
      } else {
        if (stream.available < FRAME_HEADER_BYTES || !this.#wholeHello(stream)) return
        this.#takeHeader(stream)
      }
    }
  }

  onDrain(stream: ByteStream): void {
    if (stream.paused && !this.#isFull()) stream.resume()
  }

  onClose(_stream: ByteStream, reason: Error | undefined): void {
    this.#options.onClose(this, reason)
  }

  #isFull(): boolean {
    return (
      this.#stopped ||
      this.#bytesInFlight > MAX_BYTES_IN_FLIGHT ||
      this.#requestsInFlight >= MAX_REQUESTS_IN_FLIGHT ||
      this.stream.output.bytes > MAX_BYTES_UNSENT
    )
  }

  #takeHeader(stream: ByteStream): void {
    reactor.busyPoll.messages++
    const {input, start} = stream
    if (input.readUInt16LE(start) !== FRAME_MAGIC) {
      throw new LonghornError('PROTOCOL', `${stream.peer}: sent something that is not a frame`)
    }
    const type = input.readUInt32LE(start + 6)
    const payload = input.readUInt32LE(start + 22)
    const io = this.#takeIo()
    io.sequence = input.readUInt32LE(start + 2)
    io.type = type
    io.frameOffset = frameOffset(input, start)
    io.frameSize = type === FRAME.WRITE || type === FRAME.WRITE_DURABLE || isWhole(type) ? payload : input.readUInt32LE(start + 18)
    stream.start += FRAME_HEADER_BYTES
    switch (type) {
      case FRAME.WRITE:
      case FRAME.WRITE_DURABLE:
      case FRAME.WRITE_ATOMIC:
      case FRAME.REPAIR:
        this.#startWrite(io)
        return
      case FRAME.READ:
        this.#skip = payload
        this.#startRead(io)
        return
      case FRAME.PING:
        this.#skip = payload
        io.frameSize = 0
        this.#finish(io, 0)
        return
      case FRAME.UNMAP:
        this.#skip = payload
        this.#startWhole(io, OP.DISCARD)
        return
      case FRAME.FLUSH:
        this.#skip = payload
        io.frameSize = 0
        io.frameOffset = 0
        this.#startWhole(io, OP.FLUSH)
        return
      case FRAME.WRITE_ZEROES:
      case FRAME.WRITE_ZEROES_ALLOCATED:
        this.#skip = payload
        this.#startWhole(io, OP.WRITE_ZEROES)
        return
      case FRAME.BLOCK_STATUS:
        this.#skip = payload
        this.#blockStatus(io)
        return
      case FRAME.DIGEST:
        this.#skip = payload
        this.#digest(io)
        return
      case FRAME.HELLO:
        this.#hello(io, stream, payload)
        return
      default:
        this.#ignore(io, payload)
    }
  }

  /** As upstream's servers do: a type that is no request gets no answer. */
  #ignore(io: FrameIo, payload: number): void {
    this.#skip = payload
    this.#requestsInFlight--
    this.#free.push(io)
  }

  #hello(io: FrameIo, stream: ByteStream, payload: number): void {
    const {greet} = this.#options
    if (greet === undefined) {
      this.#ignore(io, payload)
      return
    }
    const text = stream.input.toString('utf8', stream.start, stream.start + payload)
    stream.start += payload
    this.#greet(io, greet(text))
  }

  /** False while a part of a HELLO is still to come. */
  #wholeHello(stream: ByteStream): boolean {
    if (this.#options.greet === undefined) return true
    const {input, start} = stream
    if (input.readUInt32LE(start + 6) !== FRAME.HELLO) return true
    const payload = input.readUInt32LE(start + 22)
    if (payload > MAX_HELLO_BYTES) throw new LonghornError('PROTOCOL', `${stream.peer}: a greeting of ${payload} bytes, more than ${MAX_HELLO_BYTES}`)
    return stream.available >= FRAME_HEADER_BYTES + payload
  }

  #greet(io: FrameIo, greeted: Promise<BlockDevice>): void {
    io.frameOffset = 0
    io.frameSize = 0
    greeted.then(
      device => {
        this.#device = device
        this.#finish(io, 0)
      },
      (error: unknown) => {
        if (!this.stream.closed) writeText(this.stream, io, FRAME.ERROR, messageOf(error))
        this.#recycle(io)
      },
    )
  }

  #startWhole(io: FrameIo, op: Op): void {
    io.op = op
    io.offset = io.frameOffset
    io.length = io.frameSize
    io.noUnmap = io.type === FRAME.WRITE_ZEROES_ALLOCATED
    io.fua = false
    if (!inRange(io.offset, io.length, this.#device.sizeBytes)) this.#finish(io, ERRNO.EINVAL)
    else if (io.length === 0 && op !== OP.FLUSH) this.#finish(io, 0)
    else this.#submit(io)
  }

  #startRead(io: FrameIo): void {
    const length = io.frameSize
    if (length > MAX_READ_BYTES || !inRange(io.frameOffset, length, this.#device.sizeBytes)) {
      this.#finish(io, ERRNO.EINVAL)
      return
    }
    if (length <= MAX_IO_BYTES && length > 0) {
      this.#startWhole(io, OP.READ)
      return
    }
    // Put together before it is sent, so that an error half-way can still be reported.
    io.assembly = length === 0 ? undefined : new Slab(length, oneOff)
    io.pieces = 1
    for (let done = 0; done < length; done += MAX_IO_BYTES) {
      this.#submitPiece(io, OP.READ, io.frameOffset + done, Math.min(MAX_IO_BYTES, length - done))
    }
    this.#piecesComplete(io)
  }

  #startWrite(io: FrameIo): void {
    io.pieces = 1
    const tooLong = isWhole(io.type) && io.frameSize > MAX_IO_BYTES
    if (tooLong || !inRange(io.frameOffset, io.frameSize, this.#device.sizeBytes)) {
      this.#skip = io.frameSize
      this.#finish(io, ERRNO.EINVAL)
      return
    }
    this.#writing = io
    this.#writeLeft = io.frameSize
    if (io.frameSize === 0) this.#endWrite(io)
  }

  /** Passes on what has arrived of a write's payload; false when it should wait for more. */
  #takePayload(stream: ByteStream, io: FrameIo): boolean {
    const left = this.#writeLeft
    const available = stream.available
    if (available < left && (available < LEAST_PIECE_BYTES || isWhole(io.type))) return false
    const offset = io.frameOffset + io.frameSize - left
    const start = stream.start
    if (left === io.frameSize && left <= MAX_IO_BYTES && available >= left) {
      // All of it, in one piece: the usual case.
      this.#writing = undefined
      stream.start += left
      if (io.type === FRAME.REPAIR) {
        this.#repair(io, stream.slab, start)
        return true
      }
      io.op = OP.WRITE
      io.offset = offset
      io.length = left
      io.fua = io.type === FRAME.WRITE_DURABLE
      io.atomic = io.type === FRAME.WRITE_ATOMIC
      this.#submit(io, stream.slab, start)
      return true
    }
    let length = Math.min(left, available, MAX_IO_BYTES)
    // Pieces end on a block, so that no block is written in two halves.
    if (length < left) length -= (offset + length) % 4096
    stream.start += length
    this.#writeLeft -= length
    const last = this.#writeLeft === 0
    this.#submitPiece(io, OP.WRITE, offset, length, stream.slab, start)
    if (last) this.#endWrite(io)
    return true
  }

  #endWrite(io: FrameIo): void {
    this.#writing = undefined
    this.#piecesComplete(io)
  }

  #submitPiece(parent: FrameIo, op: Op, offset: number, length: number, slab?: Slab, start?: number): void {
    const piece = this.#takeIo()
    piece.parent = parent
    piece.op = op
    piece.offset = offset
    piece.length = length
    piece.fua = parent.type === FRAME.WRITE_DURABLE
    piece.atomic = false
    piece.continued = offset !== parent.frameOffset
    parent.pieces++
    this.#submit(piece, slab, start)
  }

  #submit(io: FrameIo, slab?: Slab, start?: number): void {
    if (io.op <= OP.WRITE) this.#bytesInFlight += io.length
    this.#device.submit(io, slab, start)
  }

  /** No more pieces are to come; called by the piece that was counted for that. */
  #piecesComplete(parent: FrameIo): void {
    if (--parent.pieces > 0) return
    const {assembly, error} = parent
    parent.assembly = undefined
    if (error === 0 && assembly !== undefined && !this.stream.closed) {
      writeReply(this.stream, parent, FRAME.RESPONSE, parent.frameSize, parent.frameSize)
      this.stream.output.push(assembly, 0, parent.frameSize)
      this.#recycle(parent)
    } else {
      this.#finish(parent, error)
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
    if (io.op <= OP.WRITE) this.#bytesInFlight -= io.length
    const {parent} = io
    if (parent !== undefined) {
      if (error !== 0 && parent.error === 0) parent.error = error
      this.#recycle(io)
      this.#piecesComplete(parent)
    } else if (error === 0 && io.op === OP.READ) {
      // pieceData() has answered.
      this.#recycle(io)
    } else {
      this.#finish(io, error)
    }
    if (this.stream.paused && !this.stream.closed && !this.#isFull()) this.stream.resume()
  }

  #blockStatus(io: FrameIo): void {
    if (io.frameSize === 0 || !inRange(io.frameOffset, io.frameSize, this.#device.sizeBytes)) {
      this.#finish(io, ERRNO.EINVAL)
      return
    }
    this.#device.blockStatus(io.frameOffset, io.frameSize).then(
      extents => this.#sendExtents(io, extents.slice(0, MAX_EXTENTS)),
      () => this.#finish(io, ERRNO.EIO),
    )
  }

  #repair(io: FrameIo, slab: Slab, start: number): void {
    if (this.#device.repair === undefined) {
      this.#finish(io, ERRNO.EINVAL)
      return
    }
    slab.retain()
    this.#bytesInFlight += io.frameSize
    const finish = (answer: () => void): void => {
      slab.release()
      this.#bytesInFlight -= io.frameSize
      answer()
      if (this.stream.paused && !this.stream.closed && !this.#isFull()) this.stream.resume()
    }
    this.#device.repair(slab.buffer.subarray(start, start + io.frameSize), io.frameOffset).then(
      left => finish(() => this.#sendRepaired(io, left)),
      (error: unknown) => finish(() => this.#finish(io, isKind(error, 'NO_SPACE') ? ERRNO.ENOSPC : ERRNO.EIO)),
    )
  }

  #sendRepaired(io: FrameIo, left: number): void {
    if (!this.stream.closed) writeRepaired(this.stream, io, left)
    this.#recycle(io)
  }

  #sendExtents(io: FrameIo, extents: readonly Extent[]): void {
    if (!this.stream.closed) writeExtents(this.stream, io, extents)
    this.#recycle(io)
  }

  #digest(io: FrameIo): void {
    const {frameOffset: offset, frameSize: length} = io
    if (this.#device.digest === undefined || length === 0 || length > MAX_DIGEST_RANGE || !inRange(offset, length, this.#device.sizeBytes)) {
      this.#finish(io, ERRNO.EINVAL)
      return
    }
    this.#device.digest(offset, length).then(
      digest => {
        if (!this.stream.closed) writeDigest(this.stream, io, digest)
        this.#recycle(io)
      },
      () => this.#finish(io, ERRNO.EIO),
    )
  }

  /** Answers a request without data. */
  #finish(io: FrameIo, error: number): void {
    if (!this.stream.closed) {
      if (error === 0) writeReply(this.stream, io, FRAME.RESPONSE, io.type === FRAME.UNMAP ? 0 : io.frameSize, 0)
      else this.#replyError(io, error)
    }
    this.#recycle(io)
  }

  #replyError(io: FrameIo, error: number): void {
    writeText(this.stream, io, error === ERRNO.ENOSPC ? this.#options.noSpaceType : FRAME.ERROR, errorText(error))
  }

  #takeIo(): FrameIo {
    this.#requestsInFlight++
    return this.#free.pop() ?? new FrameIo(this)
  }

  #recycle(io: FrameIo): void {
    this.#requestsInFlight--
    io.parent = undefined
    io.error = 0
    io.continued = false
    this.#free.push(io)
  }
}

/** Types whose payload is taken as one piece, or refused. */
function isWhole(type: number): boolean {
  return type === FRAME.WRITE_ATOMIC || type === FRAME.REPAIR
}

/** For buffers of a size of their own: nothing is kept. */
const oneOff = new SlabPool(SLAB_BYTES, 0)
