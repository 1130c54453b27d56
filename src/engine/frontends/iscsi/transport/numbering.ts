import {LonghornError} from '../../../../lib/errors.js'
import {Slab, SlabPool} from '../../../../lib/net/slab.js'
import type {CommandWindow} from './command-window.js'
import {HEADER_BYTES, NO_TAG, padded, REQUEST, type IncomingPdu} from './pdu.js'

/** Out of order they come only from initiators that test this, or have lost their way. */
const MAX_EARLY_BYTES = 4 * 1024 * 1024

/** For copies that are made once and left to the garbage collector. */
const unpooled = new SlabPool(0, 0)

/** A command that came before one that goes before it, and the unsolicited data that followed it. */
interface Early {
  /** `undefined`: it has been aborted before it was here. */
  readonly taskTag: number | undefined
  /** Whole PDUs, without digests. */
  readonly pdus: Slab[]
}

/**
 * Puts the commands of a session in the order of their numbers. With one connection they come in order, unless the
 * initiator leaves one out; what comes behind a gap waits until it is filled.
 */
export class Numbering {
  readonly #early = new Map<number, Early>()
  #bytes = 0

  constructor(readonly window: CommandWindow) {}

  /** True when commands wait for one that is missing. */
  get hasGap(): boolean {
    return this.#early.size > 0
  }

  /** Keeps a command for later. A second one with the same number is ignored. Throws PROTOCOL when there are too many. */
  keep(pdu: IncomingPdu): void {
    if (this.#early.has(pdu.cmdSN)) return
    this.#early.set(pdu.cmdSN, {taskTag: pdu.taskTag, pdus: [this.#copy(pdu)]})
  }

  /** Keeps a Data-Out PDU if it belongs to a command that is kept. False when it does not. */
  keepData(pdu: IncomingPdu): boolean {
    if (pdu.opcode !== REQUEST.DATA_OUT || pdu.word20 !== NO_TAG) return false
    const {taskTag} = pdu
    for (const early of this.#early.values()) {
      if (early.taskTag !== taskTag) continue
      early.pdus.push(this.#copy(pdu))
      return true
    }
    return false
  }

  /** A command with this number, which has not come in its turn yet, is not to be carried out. */
  skip(cmdSN: number): void {
    this.#forget(cmdSN)
    this.#early.set(cmdSN, {taskTag: undefined, pdus: []})
  }

  /** The PDUs of the command whose turn it is, which counts as received; undefined when it is not here. */
  next(): readonly Slab[] | undefined {
    const cmdSN = this.window.expCmdSN
    const early = this.#early.get(cmdSN)
    if (early === undefined) return undefined
    this.#forget(cmdSN)
    this.window.advance()
    if (early.taskTag === undefined) this.window.release()
    return early.pdus
  }

  #forget(cmdSN: number): void {
    for (const {size} of this.#early.get(cmdSN)?.pdus ?? []) this.#bytes -= size
    this.#early.delete(cmdSN)
  }

  #copy(pdu: IncomingPdu): Slab {
    const headerBytes = HEADER_BYTES + pdu.additionalBytes
    const size = headerBytes + padded(pdu.dataBytes)
    this.#bytes += size
    if (this.#bytes > MAX_EARLY_BYTES) throw new LonghornError('PROTOCOL', `command ${this.window.expCmdSN >>> 0} is missing, and too many came after it`)
    const copy = new Slab(size, unpooled)
    copy.references = 1
    pdu.header.copy(copy.buffer)
    pdu.data.copy(copy.buffer, headerBytes)
    return copy
  }
}
