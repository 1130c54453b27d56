import {reactor} from '../../../../lib/net/reactor.js'
import type {Slab} from '../../../../lib/net/slab.js'
import type {Parameters} from './negotiation.js'
import type {PduWriter} from './pdu-writer.js'

/** A part of the data that came before the part that goes before it. */
interface Waiting {
  readonly slab: Slab
  readonly start: number
  readonly length: number
  readonly offset: number
}

/** What is copied in one PDU must fit into one slab. */
const MOST_COPIED_BYTES = 64 * 1024

/** What a read needs to know of its connection. */
export interface ReadContext {
  readonly writer: PduWriter
  readonly parameters: Parameters
}

/**
 * The way of one command's data to the initiator. It goes out in order, as agreed in the login; parts that come too early
 * are kept where they are. The number of bytes on their way is bounded by the admission of commands.
 */
export class ReadTransfer {
  /** Bytes that have been sent: all before this offset. */
  sent = 0
  /** Data-In PDUs sent. */
  pdus = 0
  /** The end of everything the device server has given, also beyond what the initiator takes. */
  given = 0
  #expected = 0
  #taskTag = 0
  #burstLeft = 0
  #waiting: Waiting[] = []

  constructor(readonly context: ReadContext) {}

  begin(taskTag: number, expected: number): void {
    this.#taskTag = taskTag
    this.#expected = expected
    this.sent = 0
    this.pdus = 0
    this.given = 0
    this.#burstLeft = this.context.parameters.maxBurst
  }

  /** Sends `length` bytes of a slab, which are at `offset` of the command's data. */
  send(slab: Slab, start: number, length: number, offset: number): void {
    const end = offset + length
    if (end > this.given) this.given = end
    if (offset >= this.#expected) return
    const wanted = end > this.#expected ? this.#expected - offset : length
    if (offset !== this.sent) {
      slab.retain()
      this.#waiting.push({slab, start, length: wanted, offset})
      return
    }
    this.#emit(slab, start, wanted)
    if (this.#waiting.length > 0) this.#sendWaiting()
  }

  /** Sends all of an answer at once; it is copied. */
  sendCopy(data: Buffer): void {
    if (data.length > this.given) this.given = data.length
    const end = Math.min(data.length, this.#expected)
    while (this.sent < end) {
      const bytes = Math.min(this.#nextBytes(end - this.sent), MOST_COPIED_BYTES)
      const part = data.subarray(this.sent, this.sent + bytes)
      this.context.writer.dataInCopy(this.#taskTag, this.pdus, this.sent, this.#endsSequence(bytes), part)
      this.#advance(bytes)
    }
  }

  /** Forgets what still waits for its turn. */
  end(): void {
    if (this.#waiting.length === 0) return
    for (const {slab} of this.#waiting) slab.release()
    this.#waiting = []
  }

  #sendWaiting(): void {
    for (;;) {
      const index = this.#waiting.findIndex(part => part.offset === this.sent)
      if (index < 0) return
      const {slab, start, length} = this.#waiting[index]!
      this.#waiting.splice(index, 1)
      this.#emit(slab, start, length)
      reactor.releaseAfterFlush(slab)
    }
  }

  /** In PDUs as large as the initiator takes, in sequences as long as agreed. */
  #emit(slab: Slab, start: number, length: number): void {
    const end = start + length
    for (let at = start; at < end; ) {
      const bytes = this.#nextBytes(end - at)
      this.context.writer.dataIn(this.#taskTag, this.pdus, this.sent, this.#endsSequence(bytes), slab, at, bytes)
      this.#advance(bytes)
      at += bytes
    }
  }

  #nextBytes(left: number): number {
    return Math.min(left, this.context.parameters.maxSendSegment, this.#burstLeft)
  }

  #endsSequence(bytes: number): boolean {
    return bytes === this.#burstLeft || this.sent + bytes === this.#expected
  }

  #advance(bytes: number): void {
    this.pdus++
    this.sent += bytes
    this.#burstLeft -= bytes
    if (this.#burstLeft === 0) this.#burstLeft = this.context.parameters.maxBurst
  }
}
