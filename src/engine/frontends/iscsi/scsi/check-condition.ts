import {constants} from 'node:os'
import {ERRNO} from '../../../../protocol/block-device.js'
import {CONDITION, type Condition, type SenseDetail} from './sense.js'

/** The error of a request that came while somebody has the device alone: the system's EBUSY, which no device answers. */
export const REFUSED: number = constants.errno.EBUSY

/** Thrown by whoever carries out a command, to end it with CHECK CONDITION. */
export class CheckCondition extends Error {
  override readonly name = 'CheckCondition'

  constructor(
    readonly condition: Condition,
    readonly detail: SenseDetail = {},
  ) {
    super(`sense ${hex(condition.key)}/${hex(condition.asc)}/${hex(condition.ascq)}`)
  }
}

/** Thrown to end a command with the status RESERVATION CONFLICT, which has no sense data. */
export class ReservationConflict extends Error {
  override readonly name = 'ReservationConflict'
}

/** Thrown to end a command with the status BUSY: to be sent again later. */
export class Busy extends Error {
  override readonly name = 'Busy'
}

/** A field of the CDB has a value that is not supported. `bit`: its most significant one, when it is not whole bytes. */
export function invalidField(byte: number, bit?: number): CheckCondition {
  return new CheckCondition(CONDITION.INVALID_FIELD_IN_CDB, {field: fieldIn('cdb', byte, bit)})
}

/** The same in a parameter list. */
export function invalidParameter(byte: number, bit?: number): CheckCondition {
  return new CheckCondition(CONDITION.INVALID_FIELD_IN_PARAMETER_LIST, {field: fieldIn('parameters', byte, bit)})
}

/** Names the reason why the device failed a request. */
export function conditionOf(errno: number, writing: boolean): Condition {
  switch (errno) {
    case ERRNO.ENOSPC:
      return CONDITION.SPACE_ALLOCATION_FAILED
    case ERRNO.EINVAL:
      return CONDITION.LBA_OUT_OF_RANGE
    case REFUSED:
      return CONDITION.SANITIZE_IN_PROGRESS
    case ERRNO.ESHUTDOWN:
      return CONDITION.NOT_READY
    default:
      return writing ? CONDITION.WRITE_ERROR : CONDITION.UNRECOVERED_READ_ERROR
  }
}

function fieldIn(where: 'cdb' | 'parameters', byte: number, bit: number | undefined): SenseDetail['field'] & object {
  return bit === undefined ? {in: where, byte} : {in: where, byte, bit}
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0')
}
