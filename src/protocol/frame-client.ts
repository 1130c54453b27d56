import {LonghornError} from '../lib/errors.js'
import {ByteStream, MAX_UNIT_BYTES, type StreamHandler} from '../lib/net/byte-stream.js'
import {reactor} from '../lib/net/reactor.js'
import type {Slab} from '../lib/net/slab.js'
import {OP, type Io} from './block-device.js'
import {formatHello, type Hello} from './hello.js'
import {
  errnoOfText,
  FRAME,
  FRAME_HEADER_BYTES,
  FRAME_MAGIC,
  MAX_ERROR_TEXT_BYTES,
  writeFrameHeader,
} from './frame.js'

/** Who uses a FrameClient. */
export interface FrameClientOwner {
  /** A request has been answered. For a READ `slab` and `start` hold its data until the end of this turn. `error` is 0 or an errno. */
  onReply(client: FrameClient, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void
  /** The connection is gone; `unanswered` are the requests that will get no reply, oldest first. Called once. */
  onLost(client: FrameClient, reason: Error, unanswered: Io[]): void
}

const FIRST_SLOTS = 1024
/** A peer whose oldest request is this many time-outs old is given up even if it answers others. */
const STUCK_FACTOR = 4
/** The same for one that has to sync, while nobody else has done it either: gigabytes may have to go to a slow disk first. */
const SYNC_FACTOR = 15
/** A peer that has been silent for this long is asked whether it is there. */
const SILENCE_MS = 900

/** The requesting side of the data protocol on one connection: many requests in flight, answers in any order. */
export class FrameClient implements StreamHandler {
  /** Bytes of the reads and writes in flight; what balancing looks at. */
  bytesInFlight = 0
  readonly #stream: ByteStream
  /** Requests in flight, each in the slot of its sequence number's low bits. */
  #slots: (Io | undefined)[] = new Array<Io | undefined>(FIRST_SLOTS).fill(undefined)
  #sequences = new Uint32Array(FIRST_SLOTS)
  /** 1 where the request in the slot is answered when its data is on the disk. */
  #syncs = new Uint8Array(FIRST_SLOTS)
  #next = 0
  #inFlight = 0
  #syncsInFlight = 0
  #pingSequence = -1
  #helloSequence = -1
  #greeted: {readonly resolve: () => void; readonly reject: (reason: Error) => void} | undefined
  /** When it last said anything. */
  #lastAnswer = 0
  /** When the ping or the greeting that is not answered was sent. */
  #calledAt = 0
  /** When it last finished a request, or was first given one that needs no sync. */
  #lastProgress = 0

  constructor(
    fd: number,
    readonly owner: FrameClientOwner,
    readonly peer: string,
    /** The peer is lost when it says nothing for this long, in ms, while something is asked; longer limits are multiples of it. */
    public timeoutMs: number,
  ) {
    this.#stream = new ByteStream(fd, this, peer)
  }

  get fd(): number {
    return this.#stream.fd
  }

  /** Nothing is asked, received or queued: another process can go on with the socket. */
  get isQuiet(): boolean {
    const {available, output} = this.#stream
    return this.#inFlight === 0 && !this.isCalled && available === 0 && !output.pending
  }

  /** Stops to look at the socket. Nothing may be asked until reattach(). */
  detach(): void {
    this.#stream.detach()
  }

  reattach(): void {
    this.#stream.reattach()
  }

  /** A ping or the greeting is not answered. */
  get isCalled(): boolean {
    return this.#pingSequence >= 0 || this.#helloSequence >= 0
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /** What has not been answered, in no order. */
  requestsInFlight(): Io[] {
    return this.#slots.filter(io => io !== undefined)
  }

  /** Bytes queued that the kernel has not taken. */
  get bytesQueued(): number {
    return this.#stream.output.bytes
  }

  /** Sends a request without payload: READ, FLUSH, UNMAP, WRITE_ZEROES, BLOCK_STATUS. */
  request(type: number, io: Io): void {
    this.#header(type, io, io.length, 0)
    this.#stream.flushSoon()
  }

  /**
   * Says who this connection is before anything else is sent on it. Resolves when the peer has agreed; rejects with CONFLICT and the
   * peer's reason when it has not, or with why the connection ended: it is closed then.
   */
  hello(hello: Hello): Promise<void> {
    return new Promise((resolve, reject) => {
      const text = Buffer.from(formatHello(hello))
      this.#greeted = {resolve, reject}
      this.#helloSequence = this.#next
      this.#next = (this.#next + 1) >>> 0
      this.#calledAt = performance.now()
      this.#put(this.#helloSequence, FRAME.HELLO, 0, text.length, text.length)
      const {output} = this.#stream
      output.reserve(text.length).buffer.set(text, output.reservedAt)
      output.commit(text.length)
      this.#stream.flushSoon()
    })
  }

  /** Sends a WRITE or WRITE_DURABLE with its data by reference. */
  write(type: number, io: Io, slab: Slab, start: number): void {
    this.#header(type, io, io.length, io.length)
    this.#stream.output.push(slab, start, io.length)
    this.#stream.flushSoon()
  }

  /**
   * To be called about once a second: gives up a peer that has not answered in time, and asks a silent one whether it
   * is there, so that a dead peer is noticed before it is needed, and one that waits for its disk is not taken for dead.
   */
  sweep(now = performance.now()): void {
    if (this.#stream.closed) return
    const reason = this.#overdue(now)
    if (reason !== undefined) this.close(new LonghornError('TIMEOUT', `${this.peer}: ${reason}`))
    else if (!this.isCalled && (this.#inFlight === 0 || now - this.#lastAnswer > SILENCE_MS)) this.#ping(now)
  }

  /** Ends the connection; everything in flight is handed to the owner's onLost(). Safe twice, the first reason wins. */
  close(reason: Error): void {
    this.#stream.destroy(reason)
  }

  onInput(stream: ByteStream): void {
    while (!stream.closed) {
      if (stream.available < FRAME_HEADER_BYTES) return
      const at = stream.start
      const input = stream.input
      const type = input.readUInt32LE(at + 6)
      if (input.readUInt16LE(at) !== FRAME_MAGIC) {
        // Upstream's servers may send a last frame of zeros and type CLOSE when they end.
        const what = type === FRAME.CLOSE ? 'closed by the peer' : 'sent something that is not a frame'
        throw new LonghornError(type === FRAME.CLOSE ? 'UNREACHABLE' : 'PROTOCOL', `${this.peer}: ${what}`)
      }
      const payload = input.readUInt32LE(at + 22)
      if (payload > MAX_UNIT_BYTES - FRAME_HEADER_BYTES) {
        throw new LonghornError('PROTOCOL', `${this.peer}: an answer of ${payload} bytes to a smaller request`)
      }
      if (stream.available < FRAME_HEADER_BYTES + payload) return
      stream.start += FRAME_HEADER_BYTES + payload
      this.#answer(stream, at, type, payload)
    }
  }

  onClose(_stream: ByteStream, reason: Error | undefined): void {
    const unanswered = this.#slots.filter(io => io !== undefined).sort((a, b) => a.startedAt - b.startedAt)
    this.#slots = []
    this.#inFlight = 0
    this.#syncsInFlight = 0
    this.bytesInFlight = 0
    const why = reason ?? new LonghornError('UNREACHABLE', `${this.peer}: closed by the peer`)
    this.#greeted?.reject(why)
    this.#greeted = undefined
    this.owner.onLost(this, why, unanswered)
  }

  #answer(stream: ByteStream, at: number, type: number, payload: number): void {
    const input = stream.input
    const sequence = input.readUInt32LE(at + 2)
    this.#lastAnswer = reactor.now
    reactor.busyPoll.messages++
    if (sequence === this.#pingSequence) {
      this.#pingSequence = -1
      if (type === FRAME.ERROR) throw new LonghornError('UNREACHABLE', `${this.peer}: ${textOf(input, at, payload)}`)
      return
    }
    if (sequence === this.#helloSequence) {
      this.#helloSequence = -1
      if (type === FRAME.ERROR) throw new LonghornError('CONFLICT', `${this.peer}: ${textOf(input, at, payload)}`)
      this.#greeted?.resolve()
      this.#greeted = undefined
      return
    }
    const slot = sequence & (this.#slots.length - 1)
    const io = this.#slots[slot]
    // A slot is reused only after its answer, so an answer to nothing is a peer that cannot be trusted with data.
    if (io === undefined || this.#sequences[slot] !== sequence) {
      throw new LonghornError('PROTOCOL', `${this.peer}: an answer to request ${sequence}, which was not asked`)
    }
    const good = type === FRAME.RESPONSE || type === FRAME.EOF
    // Before the slot is given up: what is in a slot is handed back when the connection ends.
    if (!good && type !== FRAME.ERROR) throw new LonghornError('PROTOCOL', `${this.peer}: an answer of unknown type ${type}`)
    this.#slots[slot] = undefined
    this.#inFlight--
    this.#syncsInFlight -= this.#syncs[slot]!
    this.#lastProgress = reactor.now
    if (movesData(io)) this.bytesInFlight -= io.length
    if (good) {
      this.owner.onReply(this, io, 0, '', stream.slab, at + FRAME_HEADER_BYTES, payload)
      return
    }
    const text = textOf(input, at, payload)
    this.owner.onReply(this, io, errnoOfText(text), text, undefined, 0, 0)
  }

  #header(type: number, io: Io, size: number, payload: number): void {
    if (this.#inFlight >= this.#slots.length / 2) this.#growSlots()
    const mask = this.#slots.length - 1
    // Numbers need not be contiguous: one whose slot is still taken by a slow request is passed over.
    while (this.#slots[this.#next & mask] !== undefined) this.#next = (this.#next + 1) >>> 0
    const sequence = this.#next
    this.#next = (sequence + 1) >>> 0
    this.#slots[sequence & mask] = io
    this.#sequences[sequence & mask] = sequence
    const syncs = type === FRAME.FLUSH || type === FRAME.WRITE_DURABLE || type === FRAME.WRITE_ATOMIC ? 1 : 0
    this.#syncs[sequence & mask] = syncs
    if (this.#inFlight === this.#syncsInFlight && syncs === 0) this.#lastProgress = reactor.time()
    this.#inFlight++
    this.#syncsInFlight += syncs
    if (movesData(io)) this.bytesInFlight += io.length
    this.#put(sequence, type, io.offset, size, payload)
  }

  #put(sequence: number, type: number, offset: number, size: number, payload: number): void {
    const output = this.#stream.output
    const slab = output.reserve(FRAME_HEADER_BYTES)
    writeFrameHeader(slab.buffer, output.reservedAt, sequence, type, offset, size, payload)
    output.commit(FRAME_HEADER_BYTES)
  }

  #ping(now: number): void {
    this.#calledAt = now
    this.#pingSequence = this.#next
    this.#next = (this.#next + 1) >>> 0
    this.#put(this.#pingSequence, FRAME.PING, 0, 0, 0)
    this.#stream.flushSoon()
  }

  /** Why it is to be given up; undefined while it is not. */
  #overdue(now: number): string | undefined {
    const {timeoutMs} = this
    if (this.isCalled && now - Math.max(this.#calledAt, this.#lastAnswer) > timeoutMs) return `no answer for ${timeoutMs} ms`
    if (this.#inFlight > this.#syncsInFlight && now - this.#lastProgress > timeoutMs) return `no request finished for ${timeoutMs} ms`
    for (const [slot, io] of this.#slots.entries()) {
      if (io === undefined) continue
      const limit = timeoutMs * (this.#syncs[slot] === 1 && io.succeeded === 0 ? SYNC_FACTOR : STUCK_FACTOR)
      if (now - io.startedAt > limit) return `a request has waited for ${limit} ms`
    }
    return undefined
  }

  #growSlots(): void {
    const slots = new Array<Io | undefined>(this.#slots.length * 2).fill(undefined)
    const sequences = new Uint32Array(slots.length)
    const syncs = new Uint8Array(slots.length)
    this.#slots.forEach((io, slot) => {
      if (io === undefined) return
      const sequence = this.#sequences[slot]!
      const moved = sequence & (slots.length - 1)
      slots[moved] = io
      sequences[moved] = sequence
      syncs[moved] = this.#syncs[slot]!
    })
    this.#slots = slots
    this.#sequences = sequences
    this.#syncs = syncs
  }
}

function movesData(io: Io): boolean {
  return io.op === OP.READ || io.op === OP.WRITE
}

function textOf(input: Buffer, at: number, payload: number): string {
  const start = at + FRAME_HEADER_BYTES
  return input.toString('utf8', start, start + Math.min(payload, MAX_ERROR_TEXT_BYTES))
}
