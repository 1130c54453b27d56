import {isAfter, type IncomingPdu} from './pdu.js'
import type {Numbering} from './numbering.js'
import type {Session} from './session.js'
import type {Target} from './target.js'

/** Functions of a task management request, RFC 7143 section 11.5.1. */
const FUNCTION = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_TASK_SET: 4,
  LOGICAL_UNIT_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
  TASK_REASSIGN: 8,
} as const

/** What a task management response says. */
const OUTCOME = {COMPLETE: 0, NO_SUCH_TASK: 1, NO_SUCH_UNIT: 2, NO_REASSIGNMENT: 4, NOT_SUPPORTED: 5} as const

/** A request, copied from its PDU because the answer may take a while. */
export interface ManagementRequest {
  readonly action: number
  readonly lun: number
  /** Of the task that ABORT TASK means, with the number it was sent with. */
  readonly taskTag: number
  readonly refCmdSN: number
  readonly cmdSN: number
}

export function managementRequest(pdu: IncomingPdu): ManagementRequest {
  return {action: pdu.flags & 0x7f, lun: pdu.lun, taskTag: pdu.word20, refCmdSN: pdu.word(32) | 0, cmdSN: pdu.cmdSN}
}

/** True for what ends all sessions of the target, once it has been answered. */
export function endsSessions({action}: ManagementRequest): boolean {
  return action === FUNCTION.TARGET_COLD_RESET
}

/**
 * Carries out a request. Commands are taken back at once; `respond` gets the response code when the device server has let go of
 * them, so that an initiator which is told so can rely on it: nothing of them will be written later.
 */
export function manageTasks(request: ManagementRequest, session: Session, target: Target, numbering: Numbering, respond: (outcome: number) => void): void {
  const {action, lun} = request
  const {deviceServer} = target
  const {nexus} = session
  const isForUnit = action === FUNCTION.ABORT_TASK_SET || action === FUNCTION.CLEAR_TASK_SET || action === FUNCTION.LOGICAL_UNIT_RESET
  if (isForUnit && !deviceServer.hasUnit(lun)) {
    respond(OUTCOME.NO_SUCH_UNIT)
    return
  }
  switch (action) {
    case FUNCTION.ABORT_TASK:
      abortTask(request, session, numbering, respond)
      return
    case FUNCTION.ABORT_TASK_SET:
      session.abort({lun}, undefined, () => respond(OUTCOME.COMPLETE))
      return
    case FUNCTION.CLEAR_TASK_SET:
      target.abortAll({lun}, session, () => {
        deviceServer.taskSetCleared(nexus, lun)
        respond(OUTCOME.COMPLETE)
      })
      return
    case FUNCTION.LOGICAL_UNIT_RESET:
      target.abortAll({lun}, session, () => {
        deviceServer.reset(nexus, lun)
        respond(OUTCOME.COMPLETE)
      })
      return
    case FUNCTION.TARGET_WARM_RESET:
    case FUNCTION.TARGET_COLD_RESET:
      target.abortAll({}, session, () => {
        deviceServer.reset(nexus, undefined)
        respond(OUTCOME.COMPLETE)
      })
      return
    case FUNCTION.TASK_REASSIGN:
      respond(OUTCOME.NO_REASSIGNMENT)
      return
    default:
      respond(OUTCOME.NOT_SUPPORTED)
  }
}

function abortTask({lun, taskTag, refCmdSN, cmdSN}: ManagementRequest, session: Session, numbering: Numbering, respond: (outcome: number) => void): void {
  if (session.lunOf(taskTag) === lun) {
    session.abort({taskTag}, undefined, () => respond(OUTCOME.COMPLETE))
    return
  }
  // Perhaps it is not here yet.
  const isAhead = isAfter(cmdSN, refCmdSN) && numbering.window.place(refCmdSN) !== 'outside'
  if (isAhead) numbering.skip(refCmdSN)
  respond(isAhead ? OUTCOME.COMPLETE : OUTCOME.NO_SUCH_TASK)
}
