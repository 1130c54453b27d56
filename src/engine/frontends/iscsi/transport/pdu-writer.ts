import type {ByteStream} from '../../../../lib/net/byte-stream.js'
import type {SendQueue} from '../../../../lib/net/send-queue.js'
import type {Slab} from '../../../../lib/net/slab.js'
import type {CommandWindow} from './command-window.js'
import {crc32c} from './crc32c.js'
import {DIGEST_BYTES, FINAL, HEADER_BYTES, NO_TAG, padded, RESIDUAL_FLAG, RESPONSE, viewOf} from './pdu.js'

/**
 * Data is sent from where the device received it, which keeps the whole slab around it in use until the initiator takes it.
 * With this much unsent, small data is copied instead: otherwise an initiator that does not read would hold a slab per block.
 */
const COPY_ABOVE_BYTES = 256 * 1024
const COPY_AT_MOST_BYTES = 32 * 1024

/** A PDU of the kinds that are not sent per command. */
export interface ControlPdu {
  readonly opcode: number
  /** FINAL alone if not given. */
  readonly flags?: number
  /** Bytes 2 and 3. */
  readonly detail?: number
  readonly lunHigh?: number
  readonly lunLow?: number
  readonly taskTag: number
  readonly word20?: number
  /** `next`: the number is used up by this PDU; `current`: it tells which one is next. */
  readonly statSN: 'next' | 'current'
  readonly word36?: number
  readonly word40?: number
}

const NO_DATA = Buffer.alloc(0)

/** Puts PDUs of the target into a connection's output. Headers are written where they are sent from, data goes by reference. */
export class PduWriter {
  headerDigest = false
  dataDigest = false
  #statSN = 1
  readonly #output: SendQueue
  /** The memory that headers are written to. */
  #arena: Slab | undefined
  #view: DataView = new DataView(new ArrayBuffer(0))
  /** Bytes that have ever been queued. */
  #queued = 0
  /** The last PDU, when it is a Data-In: where its header lies, and where in the stream it begins and ends. */
  #lastDataIn = 0
  #lastFrom = -1
  #lastTo = -1

  constructor(
    readonly stream: ByteStream,
    /** What the initiator is told about its commands. */
    public window: CommandWindow,
  ) {
    this.#output = stream.output
  }

  /** Bytes that the kernel has taken so far. */
  get taken(): number {
    return this.#queued - this.#output.bytes
  }

  /** Any PDU, with its data, which is copied. Nothing happens when the connection is gone, as answers may come later than that. */
  control(pdu: ControlPdu, data: Buffer = NO_DATA): void {
    if (this.stream.closed) return
    const at = this.#begin(data.length)
    const view = this.#view
    view.setUint32(at, pdu.opcode * 0x1000000 + (pdu.flags ?? FINAL) * 0x10000 + (pdu.detail ?? 0))
    view.setUint32(at + 4, data.length)
    view.setInt32(at + 8, pdu.lunHigh ?? 0)
    view.setInt32(at + 12, pdu.lunLow ?? 0)
    view.setInt32(at + 16, pdu.taskTag)
    view.setInt32(at + 20, pdu.word20 ?? 0)
    this.#numbers(at, pdu.statSN === 'next')
    view.setInt32(at + 36, pdu.word36 ?? 0)
    view.setInt32(at + 40, pdu.word40 ?? 0)
    view.setInt32(at + 44, 0)
    this.#endWithData(at, data)
  }

  /** A Login Response. It has fields of its own, and digests begin only after the last one. */
  loginResponse(pdu: {flags: number; isid: Buffer; tsih: number; taskTag: number; status: number}, text: Buffer): void {
    const {isid} = pdu
    const fields = {
      opcode: RESPONSE.LOGIN,
      flags: pdu.flags,
      lunHigh: isid.readInt32BE(0),
      lunLow: isid.readUInt16BE(4) * 0x10000 + pdu.tsih,
      taskTag: pdu.taskTag,
      statSN: 'next',
      word36: pdu.status * 0x10000,
    } as const
    this.control(fields, text)
  }

  /**
   * A SCSI Response. `residualFlags`, `residual`: how the data that was moved differs from what the initiator expected, and
   * by how many bytes. `dataPdus`: Data-In and R2T PDUs that the command has caused.
   */
  scsiResponse(taskTag: number, status: number, residualFlags: number, residual: number, dataPdus: number, sense: Buffer | undefined): void {
    const senseBytes = sense === undefined ? 0 : 2 + sense.length
    const at = this.#begin(senseBytes)
    const view = this.#view
    view.setUint32(at, RESPONSE.SCSI_RESPONSE * 0x1000000 + (FINAL | residualFlags) * 0x10000 + status)
    view.setUint32(at + 4, senseBytes)
    view.setInt32(at + 8, 0)
    view.setInt32(at + 12, 0)
    view.setInt32(at + 16, taskTag)
    view.setInt32(at + 20, 0)
    this.#numbers(at, true)
    view.setUint32(at + 36, dataPdus)
    view.setInt32(at + 40, 0)
    view.setUint32(at + 44, residual)
    if (sense === undefined) {
      this.#end(at, HEADER_BYTES)
      return
    }
    const data = Buffer.allocUnsafe(senseBytes)
    data.writeUInt16BE(sense.length)
    sense.copy(data, 2)
    this.#endWithData(at, data)
  }

  /** A request for `length` bytes of a command's data at `offset`. */
  r2t(lunHigh: number, lunLow: number, taskTag: number, transferTag: number, number: number, offset: number, length: number): void {
    const at = this.#begin(0)
    const view = this.#view
    view.setUint32(at, RESPONSE.R2T * 0x1000000 + FINAL * 0x10000)
    view.setUint32(at + 4, 0)
    view.setInt32(at + 8, lunHigh)
    view.setInt32(at + 12, lunLow)
    view.setInt32(at + 16, taskTag)
    view.setInt32(at + 20, transferTag)
    this.#numbers(at, false)
    view.setUint32(at + 36, number)
    view.setUint32(at + 40, offset)
    view.setUint32(at + 44, length)
    this.#end(at, HEADER_BYTES)
  }

  /** A Data-In PDU with `length` bytes of a slab, pushed by reference. */
  dataIn(taskTag: number, number: number, offset: number, isFinal: boolean, slab: Slab, start: number, length: number): void {
    const at = this.#begin(0)
    this.#dataInHeader(at, taskTag, number, offset, isFinal, length)
    const from = this.#queued
    this.#end(at, HEADER_BYTES)
    this.#pushData(slab, start, length)
    this.#rememberDataIn(at, from)
  }

  /** A Data-In PDU with a copy of `data`, at most 64 KiB. */
  dataInCopy(taskTag: number, number: number, offset: number, isFinal: boolean, data: Buffer): void {
    const at = this.#begin(data.length)
    this.#dataInHeader(at, taskTag, number, offset, isFinal, data.length)
    const from = this.#queued
    this.#endWithData(at, data)
    this.#rememberDataIn(at, from)
  }

  /**
   * Makes the last PDU, if it is the last Data-In of this command and has not been sent, carry the command's status too, which
   * saves a SCSI Response. False when that is not so.
   */
  addStatus(taskTag: number, status: number, residualFlags: number, residual: number): boolean {
    if (this.#lastTo !== this.#queued || this.taken > this.#lastFrom) return false
    const at = this.#lastDataIn
    const view = this.#view
    if (view.getInt32(at + 16) !== taskTag) return false
    view.setUint32(at, RESPONSE.DATA_IN * 0x1000000 + (FINAL | RESIDUAL_FLAG.STATUS | residualFlags) * 0x10000 + status)
    this.#numbers(at, true)
    view.setUint32(at + 44, residual)
    if (this.headerDigest) this.#writeHeaderDigest(at)
    this.#lastTo = -1
    return true
  }

  #dataInHeader(at: number, taskTag: number, number: number, offset: number, isFinal: boolean, length: number): void {
    const view = this.#view
    view.setUint32(at, RESPONSE.DATA_IN * 0x1000000 + (isFinal ? FINAL * 0x10000 : 0))
    view.setUint32(at + 4, length)
    view.setInt32(at + 8, 0)
    view.setInt32(at + 12, 0)
    view.setInt32(at + 16, taskTag)
    view.setInt32(at + 20, NO_TAG)
    this.#numbers(at, false)
    view.setInt32(at + 24, 0)
    view.setUint32(at + 36, number)
    view.setUint32(at + 40, offset)
    view.setInt32(at + 44, 0)
  }

  #rememberDataIn(at: number, from: number): void {
    this.#lastDataIn = at
    this.#lastFrom = from
    this.#lastTo = this.#queued
  }

  /** Room for a header, its digest and as much data. What was reserved before is where it was, except that the memory may be another. */
  #begin(dataBytes: number): number {
    const output = this.#output
    const arena = output.reserve(HEADER_BYTES + DIGEST_BYTES + padded(dataBytes) + DIGEST_BYTES)
    if (arena !== this.#arena) {
      this.#arena = arena
      this.#view = viewOf(arena)
      // The last header is in other memory.
      this.#lastTo = -1
    }
    return output.reservedAt
  }

  #numbers(at: number, usesStatSN: boolean): void {
    const view = this.#view
    view.setInt32(at + 24, this.#statSN)
    if (usesStatSN) this.#statSN = (this.#statSN + 1) | 0
    view.setInt32(at + 28, this.window.expCmdSN)
    view.setInt32(at + 32, this.window.maxCmdSN)
  }

  /** Queues `length` bytes of header and whatever stands behind it, with the header's digest in between. */
  #end(at: number, length: number): void {
    const total = this.headerDigest ? length + DIGEST_BYTES : length
    if (this.headerDigest) this.#writeHeaderDigest(at)
    this.#output.commit(total)
    this.#queued += total
    this.stream.flushSoon()
  }

  /** As #end(), with data that is copied behind the header. */
  #endWithData(at: number, data: Buffer): void {
    if (data.length === 0) {
      this.#end(at, HEADER_BYTES)
      return
    }
    const {buffer} = this.#arena!
    const start = at + HEADER_BYTES + (this.headerDigest ? DIGEST_BYTES : 0)
    const end = start + padded(data.length)
    data.copy(buffer, start)
    buffer.fill(0, start + data.length, end)
    if (this.dataDigest) this.#view.setUint32(end, crc32c(buffer, start, end), true)
    this.#end(at, HEADER_BYTES + padded(data.length) + (this.dataDigest ? DIGEST_BYTES : 0))
  }

  #pushData(slab: Slab, start: number, length: number): void {
    const output = this.#output
    const crc = this.dataDigest ? crc32c(slab.buffer, start, start + length) : 0
    if (length <= COPY_AT_MOST_BYTES && output.bytes > COPY_ABOVE_BYTES) {
      slab.buffer.copy(output.reserve(length).buffer, output.reservedAt, start, start + length)
      output.commit(length)
    } else {
      output.push(slab, start, length)
    }
    this.#queued += length
    const padding = padded(length) - length
    if (padding > 0 || this.dataDigest) this.#pushTrailer(padding, crc)
  }

  /** Padding, which the data digest covers, and the digest. */
  #pushTrailer(padding: number, crc: number): void {
    const output = this.#output
    const {buffer} = output.reserve(padding + DIGEST_BYTES)
    const at = output.reservedAt
    buffer.fill(0, at, at + padding)
    let length = padding
    if (this.dataDigest) {
      buffer.writeUInt32LE(crc32c(buffer, at, at + padding, crc), at + padding)
      length += DIGEST_BYTES
    }
    output.commit(length)
    this.#queued += length
  }

  #writeHeaderDigest(at: number): void {
    this.#view.setUint32(at + HEADER_BYTES, crc32c(this.#arena!.buffer, at, at + HEADER_BYTES), true)
  }
}
