import type {Slab} from '../../../../lib/net/slab.js'
import type {SessionKind} from './negotiation.js'
import {Numbering} from './numbering.js'
import {ASYNC_EVENT, FINAL, IncomingPdu, LOGOUT, NO_TAG, REJECT, REQUEST, RESPONSE, type RejectReason} from './pdu.js'
import type {CommandWindow} from './command-window.js'
import type {PduWriter} from './pdu-writer.js'
import type {Session} from './session.js'
import type {Target} from './target.js'
import {endsSessions, manageTasks, managementRequest} from './task-management.js'
import type {TextExchange} from './text-exchange.js'
import type {WriteTransfer} from './write-transfer.js'

/** Task management requests that wait for commands to end. */
const MAX_PENDING = 64

/** A connection as the full feature phase sees it. */
export interface FullFeatureLink {
  readonly writer: PduWriter
  readonly cid: number
  reject(pdu: IncomingPdu, reason: RejectReason, why: string): void
  /** Hands the data of a PDU that lies elsewhere to whoever takes it. */
  feed(pdu: IncomingPdu, to: WriteTransfer | undefined): void
  /** Sends what is queued, then closes. */
  endAfterFlush(): void
  /** The initiator has answered a ping. */
  pingAnswered(tag: number): void
}

export interface FullFeatureOptions {
  readonly link: FullFeatureLink
  readonly target: Target
  readonly window: CommandWindow
  readonly text: TextExchange
  /** Undefined in a discovery session, which has no commands. */
  readonly session: Session | undefined
}

/** The full feature phase of one connection: decides by opcode and number what becomes of each PDU. */
export class FullFeature {
  readonly kind: SessionKind
  readonly #numbering: Numbering
  #pending = 0
  #loggedOut = false

  constructor(readonly options: FullFeatureOptions) {
    this.kind = options.session === undefined ? 'discovery' : 'normal'
    this.#numbering = new Numbering(options.window)
  }

  /** True when data of this PDU may be passed on before all of it is here. */
  mayCutThrough(pdu: IncomingPdu): boolean {
    if (this.#numbering.hasGap || this.#loggedOut) return false
    if (pdu.opcode === REQUEST.DATA_OUT) return true
    return pdu.opcode === REQUEST.SCSI_COMMAND && (pdu.immediate || pdu.cmdSN === this.options.window.expCmdSN)
  }

  /**
   * A PDU: all of it, or all but its data when mayCutThrough(). Gives what takes the data; undefined when nobody does.
   * `digestError`: the data digest does not match. Throws PROTOCOL.
   */
  handle(pdu: IncomingPdu, digestError: boolean): WriteTransfer | undefined {
    // After a logout nothing counts any more.
    if (this.#loggedOut) return undefined
    if (digestError) this.options.link.reject(pdu, REJECT.DATA_DIGEST, 'a data digest does not match')
    switch (pdu.opcode) {
      case REQUEST.DATA_OUT:
        return this.#dataOut(pdu, digestError)
      case REQUEST.SNACK:
        // There is nothing to ask for again at ErrorRecoveryLevel 0.
        this.options.link.reject(pdu, REJECT.SNACK, 'a SNACK')
        return undefined
      case REQUEST.SCSI_COMMAND:
      case REQUEST.NOP_OUT:
      case REQUEST.TASK_MANAGEMENT:
      case REQUEST.TEXT:
      case REQUEST.LOGOUT:
        return this.#numbered(pdu, digestError)
      case REQUEST.LOGIN:
        this.options.link.reject(pdu, REJECT.PROTOCOL, 'a login request after the login')
        return undefined
      default:
        this.options.link.reject(pdu, REJECT.NOT_SUPPORTED, `an opcode that is not known: ${pdu.opcode}`)
        return undefined
    }
  }

  /** Asks the initiator to log out within `seconds`. */
  requestLogout(seconds: number): void {
    if (this.#loggedOut) return
    const fields = {opcode: RESPONSE.ASYNC_MESSAGE, taskTag: NO_TAG, statSN: 'next', word36: ASYNC_EVENT.LOGOUT_REQUESTED << 24, word40: seconds & 0xffff} as const
    this.options.link.writer.control(fields)
  }

  /** Asks whether the initiator is still there. */
  ping(tag: number): void {
    this.options.link.writer.control({opcode: RESPONSE.NOP_IN, taskTag: NO_TAG, word20: tag, statSN: 'current'})
  }

  #dataOut(pdu: IncomingPdu, digestError: boolean): WriteTransfer | undefined {
    const {session, link} = this.options
    if (session === undefined) {
      link.reject(pdu, REJECT.PROTOCOL, 'data in a discovery session')
      return undefined
    }
    // Behind a gap a bad PDU is as good as a missing one.
    if (this.#numbering.hasGap && !digestError && this.#numbering.keepData(pdu)) return undefined
    return session.dataOut(pdu, digestError)
  }

  #numbered(pdu: IncomingPdu, digestError: boolean): WriteTransfer | undefined {
    if (pdu.immediate) return this.#carryOut(pdu, digestError)
    const {window} = this.options
    switch (window.place(pdu.cmdSN)) {
      case 'outside':
        return undefined
      case 'later':
        if (!digestError) this.#numbering.keep(pdu)
        return undefined
      case 'next': {
        window.advance()
        if (!this.#numbering.hasGap) return this.#carryOut(pdu, digestError)
        this.options.link.feed(pdu, this.#carryOut(pdu, digestError))
        this.#carryOutEarly()
        return undefined
      }
    }
  }

  #carryOutEarly(): void {
    for (;;) {
      const pdus = this.#numbering.next()
      if (pdus === undefined) return
      for (const slab of pdus) this.#carryOutCopy(slab)
    }
  }

  #carryOutCopy(slab: Slab): void {
    const pdu = new IncomingPdu(slab)
    pdu.read(slab, 0, 0)
    const to = pdu.opcode === REQUEST.DATA_OUT ? this.options.session?.dataOut(pdu, false) : this.#carryOut(pdu, false)
    this.options.link.feed(pdu, to)
  }

  /** A request whose turn it is. */
  #carryOut(pdu: IncomingPdu, digestError: boolean): WriteTransfer | undefined {
    const {session, text, window, link} = this.options
    if (pdu.opcode === REQUEST.SCSI_COMMAND && session !== undefined) return session.command(pdu, digestError)
    // All others end as soon as they are answered, and task management needs no place in the window while it waits.
    if (!pdu.immediate) window.release()
    if (digestError) return undefined
    if (pdu.opcode === REQUEST.NOP_OUT) this.#nop(pdu)
    else if (pdu.opcode === REQUEST.TEXT) text.handle(pdu)
    else if (pdu.opcode === REQUEST.LOGOUT) this.#logout(pdu)
    else if (pdu.opcode === REQUEST.TASK_MANAGEMENT && session !== undefined) this.#manageTasks(pdu, session)
    else link.reject(pdu, REJECT.PROTOCOL, 'a command in a discovery session')
    return undefined
  }

  #nop(pdu: IncomingPdu): void {
    const {link, text} = this.options
    const {taskTag} = pdu
    if (pdu.word20 !== NO_TAG) link.pingAnswered(pdu.word20)
    if (taskTag === NO_TAG) return
    const data = pdu.data.subarray(0, text.context.parameters.maxSendSegment)
    link.writer.control({opcode: RESPONSE.NOP_IN, lunHigh: pdu.lunHigh, lunLow: pdu.lunLow, taskTag, word20: NO_TAG, statSN: 'next'}, data)
  }

  #logout(pdu: IncomingPdu): void {
    const {link, session} = this.options
    const reason = pdu.flags & 0x7f
    const closesSession = reason === 0
    const response = reason === 2 ? LOGOUT.NO_RECOVERY : closesSession || pdu.u16(20) === link.cid ? LOGOUT.DONE : LOGOUT.NO_SUCH_CONNECTION
    if (reason > 2) {
      link.reject(pdu, REJECT.INVALID_FIELD, `a logout for a reason that is not known: ${reason}`)
      return
    }
    if (response === LOGOUT.DONE) session?.dropCommands()
    link.writer.control({opcode: RESPONSE.LOGOUT, detail: response << 8, taskTag: pdu.taskTag, statSN: 'next'})
    if (response !== LOGOUT.DONE) return
    this.#loggedOut = true
    link.endAfterFlush()
  }

  #manageTasks(pdu: IncomingPdu, session: Session): void {
    const {link, target} = this.options
    if (this.#pending >= MAX_PENDING) {
      link.reject(pdu, REJECT.TOO_MANY_IMMEDIATE, 'too many task management requests')
      return
    }
    const request = managementRequest(pdu)
    const {taskTag} = pdu
    this.#pending++
    const respond = (outcome: number): void => {
      this.#pending--
      link.writer.control({opcode: RESPONSE.TASK_MANAGEMENT, flags: FINAL, detail: outcome << 8, taskTag, statSN: 'next'})
      if (endsSessions(request)) target.endSessions()
      else if (this.#numbering.hasGap) this.#carryOutEarly()
    }
    manageTasks(request, session, target, this.#numbering, respond)
  }
}
