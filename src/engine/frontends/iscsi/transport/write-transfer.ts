import {reactor, type Flushable} from '../../../../lib/net/reactor.js'
import {Slab, SlabPool} from '../../../../lib/net/slab.js'
import {MAX_IO_BYTES} from '../../../../protocol/block-device.js'
import type {DataSink, ScsiTask} from '../scsi-task.js'
import type {Parameters} from './negotiation.js'
import {NO_TAG, type IncomingPdu} from './pdu.js'
import type {PduWriter} from './pdu-writer.js'
import {SENSE} from './sense.js'

/** What a write needs to know of its connection. */
export interface WriteContext {
  readonly writer: PduWriter
  readonly parameters: Parameters
  /** So many bytes more (or fewer) are kept that have arrived before they were asked for. */
  held(bytes: number): void
}

/** The command that a transfer belongs to. */
export interface WriteOwner extends ScsiTask {
  readonly taskTag: number
  readonly slot: number
  readonly lunHigh: number
  readonly lunLow: number
  /** The initiator has sent all that it was going to: what has been put off until then can be done. */
  writeDrained(): void
}

/** A part that arrived before the command asked for it; a copy. */
interface Held {
  readonly slab: Slab
  readonly offset: number
}

const NOTHING = Buffer.alloc(0)
/** For copies that are made once and left to the garbage collector. */
const unpooled = new SlabPool(0, 0)

/**
 * The way of one command's data from the initiator, in order:
 *
 *     what came with the command · unsolicited Data-Out PDUs, up to FirstBurstLength · answers to our R2Ts
 *
 * It is passed on as it arrives. What has arrived before the device server asks for it is copied and kept; that is
 * bounded by FirstBurstLength, as an R2T is sent only afterwards.
 *
 * A transfer that was given up (an error, an abort, a command that has ended early) still takes what the initiator is
 * bound to send, and drops it: a response must not overtake it.
 */
export class WriteTransfer implements Flushable {
  /** Bytes that have arrived. */
  received = 0
  /** R2Ts sent. */
  r2ts = 0
  /** More unsolicited Data-Out PDUs follow. */
  #unsolicited = false
  /** A PDU's data is arriving. */
  #inSegment = false
  /** That PDU ends its sequence. */
  #segmentEnds = false
  /** … and it answers an R2T. */
  #segmentSolicited = false
  /** R2Ts that have not been answered in full. */
  #outstanding = 0
  /** Bytes asked for, with R2Ts or without: all before this offset. */
  #asked = 0
  /** Where the R2T that is being answered ends. */
  #sequenceEnd = 0
  /** DataSN of the next PDU of the sequence. */
  #dataSN = 0
  /** What the device server wants: -1 until it says so, and never more than comes. */
  #wanted = -1
  #passedOn = 0
  #ended = false
  #dropping = false
  #startPlanned = false
  #held: Held[] = []
  #sink: DataSink | undefined
  #parameters = NOTHING
  #done: ((task: ScsiTask, data: Buffer) => void) | undefined

  constructor(
    readonly context: WriteContext,
    readonly owner: WriteOwner,
  ) {}

  /** For a new command. `hasData`: its own PDU carries some. */
  begin(hasData: boolean, unsolicited: boolean): void {
    this.received = 0
    this.r2ts = 0
    this.#unsolicited = unsolicited
    this.#inSegment = hasData
    this.#segmentEnds = !unsolicited
    this.#segmentSolicited = false
    this.#outstanding = 0
    this.#asked = 0
    this.#sequenceEnd = 0
    this.#dataSN = 0
    this.#wanted = -1
    this.#passedOn = 0
    this.#ended = false
    this.#dropping = false
    this.#sink = undefined
    this.#parameters = NOTHING
    this.#done = undefined
  }

  /** Bytes that the device server has got. */
  get passedOn(): number {
    return this.#passedOn
  }

  /** The initiator is bound to send more: its unsolicited data, or answers to R2Ts. */
  get isOwed(): boolean {
    return this.#inSegment || this.#unsolicited || this.#outstanding > 0
  }

  receiveData(length: number, sink: DataSink): void {
    this.#want(length)
    this.#sink = sink
  }

  receiveParameters(length: number, done: (task: ScsiTask, data: Buffer) => void): void {
    this.#want(length)
    this.#done = done
    this.#parameters = Buffer.allocUnsafe(this.#wanted)
  }

  /** Starts to pass on data if it was asked for. To be called after the call in which that may have happened, never during it. */
  start(): void {
    if (this.#wanted < 0) return
    if (this.#held.length > 0) this.#passOnHeld()
    this.#continue()
  }

  /** Starts at the end of this turn: the device server has asked in its own time. */
  startSoon(): void {
    if (this.#startPlanned) return
    this.#startPlanned = true
    reactor.flushSoon(this)
  }

  /** Called by the reactor. */
  flush(): void {
    this.#startPlanned = false
    if (this.#dropping) this.#end()
    else this.start()
  }

  /**
   * A Data-Out PDU of this command: its data follows with take(). Undefined if that is in order, else sense data that says
   * what is wrong with it; the data follows nevertheless, to be dropped.
   */
  beginSegment(pdu: IncomingPdu): Buffer | undefined {
    const solicited = pdu.word20 !== NO_TAG
    this.#inSegment = true
    this.#segmentEnds = pdu.isFinal
    this.#segmentSolicited = solicited
    if (this.#dropping) return undefined
    const {parameters} = this.context
    if (solicited && this.#dataSN === 0) this.#sequenceEnd = Math.min(this.received + parameters.maxBurst, this.#asked)
    const limit = solicited ? this.#sequenceEnd : Math.min(parameters.firstBurst, this.owner.expectedOut)
    const end = this.received + pdu.dataBytes
    if (pdu.word(36) !== this.#dataSN++) return SENSE.CRC_ERROR
    if (pdu.word(40) !== this.received) return SENSE.WRONG_AMOUNT
    if (end > limit) return solicited ? SENSE.WRONG_AMOUNT : SENSE.UNEXPECTED_DATA
    if (solicited && pdu.isFinal && end < limit) return SENSE.WRONG_AMOUNT
    // All that may come is here: that ends the sequence, whatever the PDU says.
    if (end === limit) this.#segmentEnds = true
    return undefined
  }

  /** True when this Data-Out PDU may come now: it belongs to a sequence that is under way. */
  awaits(pdu: IncomingPdu): boolean {
    if (pdu.word20 === NO_TAG) return this.#unsolicited
    // R2Ts are answered in the order in which they were sent.
    return this.#outstanding > 0 && pdu.word20 === this.#transferTag(this.r2ts - this.#outstanding)
  }

  /** The next `length` bytes of the PDU. They stay as they are until the end of this turn. */
  take(slab: Slab, start: number, length: number): void {
    const offset = this.received
    this.received += length
    if (this.#dropping || this.#ended) return
    if (this.#wanted < 0) this.#hold(slab, start, length, offset)
    else this.#passOn(slab, start, length)
  }

  /** The PDU's data is complete. */
  endSegment(): void {
    this.#inSegment = false
    if (this.#segmentEnds) {
      this.#dataSN = 0
      if (this.#segmentSolicited) this.#outstanding--
      else this.#unsolicited = false
    }
    this.#continue()
  }

  /** Stops passing on data, and tells the device server if it waits for some: the owner's `aborted` is set by now. */
  drop(): void {
    if (this.#dropping) return
    this.#dropping = true
    this.#forgetHeld()
    this.#end()
  }

  /** The command has ended: nobody wants the rest. */
  close(): void {
    this.#dropping = true
    this.#ended = true
    this.#forgetHeld()
  }

  #want(length: number): void {
    if (this.#wanted >= 0) throw new Error('a command asks twice for its data')
    this.#wanted = Math.min(length, this.owner.expectedOut)
  }

  #continue(): void {
    if (this.#dropping) {
      if (!this.isOwed) this.owner.writeDrained()
      return
    }
    if (this.#wanted < 0) return
    if (this.#passedOn === this.#wanted) this.#end()
    else if (!this.#inSegment && !this.#unsolicited) this.#requestMore()
  }

  #passOn(slab: Slab, start: number, length: number): void {
    const bytes = Math.min(length, this.#wanted - this.#passedOn)
    if (bytes === 0) return
    const offset = this.#passedOn
    this.#passedOn += bytes
    if (this.#sink !== undefined) this.#sink.onPiece(this.owner, slab, start, bytes, offset)
    else slab.buffer.copy(this.#parameters, offset, start, start + bytes)
    if (this.#passedOn === this.#wanted) this.#end()
  }

  #end(): void {
    if (this.#ended || this.#wanted < 0) return
    this.#ended = true
    if (this.#sink !== undefined) this.#sink.onEnd(this.owner, this.#passedOn)
    else this.#done!(this.owner, this.#parameters.subarray(0, this.#passedOn))
  }

  #requestMore(): void {
    const {writer, parameters} = this.context
    const {owner} = this
    if (this.#asked < this.received) this.#asked = this.received
    while (this.#outstanding < parameters.maxOutstandingR2T && this.#asked < this.#wanted) {
      const length = Math.min(parameters.maxBurst, this.#wanted - this.#asked)
      writer.r2t(owner.lunHigh, owner.lunLow, owner.taskTag, this.#transferTag(this.r2ts), this.r2ts, this.#asked, length)
      this.#asked += length
      this.#outstanding++
      this.r2ts++
    }
  }

  /** Unique among the R2Ts of a session that are outstanding, and never NO_TAG. */
  #transferTag(number: number): number {
    return (this.owner.slot << 16) | (number & 0xffff)
  }

  #hold(slab: Slab, start: number, length: number, offset: number): void {
    const copy = new Slab(length, unpooled)
    copy.references = 1
    slab.buffer.copy(copy.buffer, 0, start, start + length)
    this.#held.push({slab: copy, offset})
    this.context.held(length)
  }

  #passOnHeld(): void {
    const held = this.#held
    this.#held = []
    for (const {slab} of held) {
      this.context.held(-slab.size)
      for (let at = 0; at < slab.size && !this.#dropping; at += MAX_IO_BYTES) {
        this.#passOn(slab, at, Math.min(MAX_IO_BYTES, slab.size - at))
      }
    }
  }

  #forgetHeld(): void {
    for (const {slab} of this.#held) this.context.held(-slab.size)
    this.#held = []
  }
}
