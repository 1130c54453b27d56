// Sense data: why a command failed, for the initiator. Two layouts (SPC-4, 4.5), chosen by D_SENSE of the control mode page:
//   fixed       0 VALID|70h  2 sense key  3 information (4)  7 additional length  12 ASC  13 ASCQ  15 sense key specific (3)
//   descriptor  0 72h  1 sense key  2 ASC  3 ASCQ  7 additional length  8 descriptors: information (00h), sense key specific (02h)
// The first byte is one more for a deferred error: one of a command that has been answered already.

/** Why a command failed. */
export interface Condition {
  readonly key: number
  readonly asc: number
  readonly ascq: number
  /** Of a command that has been answered already: told with a later one. */
  readonly deferred?: boolean
}

/** Where in it, or how far. */
export interface SenseDetail {
  /** A logical block address, or the offset of a difference. */
  readonly information?: number
  /** The offending field: of the CDB, or of the parameter list. `bit`: its most significant bit, when it is not a whole byte. */
  readonly field?: {readonly in: 'cdb' | 'parameters'; readonly byte: number; readonly bit?: number}
  /** How much of a long operation is done, 0 to 1. */
  readonly progress?: number
}

const NO_SENSE = 0x0
const NOT_READY = 0x2
const MEDIUM_ERROR = 0x3
const HARDWARE_ERROR = 0x4
const ILLEGAL_REQUEST = 0x5
const UNIT_ATTENTION = 0x6
const DATA_PROTECT = 0x7
const COPY_ABORTED = 0xa
const ABORTED_COMMAND = 0xb
const MISCOMPARE = 0xe

export const CONDITION = {
  NO_SENSE: {key: NO_SENSE, asc: 0x00, ascq: 0x00},

  SANITIZE_IN_PROGRESS: {key: NOT_READY, asc: 0x04, ascq: 0x1b},
  NOT_READY: {key: NOT_READY, asc: 0x04, ascq: 0x00},

  UNRECOVERED_READ_ERROR: {key: MEDIUM_ERROR, asc: 0x11, ascq: 0x00},
  WRITE_ERROR: {key: MEDIUM_ERROR, asc: 0x0c, ascq: 0x00},
  SANITIZE_FAILED: {key: MEDIUM_ERROR, asc: 0x31, ascq: 0x03},

  INTERNAL_TARGET_FAILURE: {key: HARDWARE_ERROR, asc: 0x44, ascq: 0x00},

  OPERATION_IN_PROGRESS: {key: ILLEGAL_REQUEST, asc: 0x00, ascq: 0x16},
  INVALID_FIELD_IN_INFORMATION_UNIT: {key: ILLEGAL_REQUEST, asc: 0x0e, ascq: 0x03},
  PARAMETER_LIST_LENGTH_ERROR: {key: ILLEGAL_REQUEST, asc: 0x1a, ascq: 0x00},
  INVALID_OPERATION_CODE: {key: ILLEGAL_REQUEST, asc: 0x20, ascq: 0x00},
  LBA_OUT_OF_RANGE: {key: ILLEGAL_REQUEST, asc: 0x21, ascq: 0x00},
  INVALID_FIELD_IN_CDB: {key: ILLEGAL_REQUEST, asc: 0x24, ascq: 0x00},
  UNIT_NOT_SUPPORTED: {key: ILLEGAL_REQUEST, asc: 0x25, ascq: 0x00},
  INVALID_FIELD_IN_PARAMETER_LIST: {key: ILLEGAL_REQUEST, asc: 0x26, ascq: 0x00},
  INVALID_RELEASE: {key: ILLEGAL_REQUEST, asc: 0x26, ascq: 0x04},
  TOO_MANY_TARGET_DESCRIPTORS: {key: ILLEGAL_REQUEST, asc: 0x26, ascq: 0x06},
  UNSUPPORTED_TARGET_DESCRIPTOR: {key: ILLEGAL_REQUEST, asc: 0x26, ascq: 0x07},
  TOO_MANY_SEGMENT_DESCRIPTORS: {key: ILLEGAL_REQUEST, asc: 0x26, ascq: 0x08},
  UNSUPPORTED_SEGMENT_DESCRIPTOR: {key: ILLEGAL_REQUEST, asc: 0x26, ascq: 0x09},
  SAVING_NOT_SUPPORTED: {key: ILLEGAL_REQUEST, asc: 0x39, ascq: 0x00},
  INVALID_MESSAGE: {key: ILLEGAL_REQUEST, asc: 0x49, ascq: 0x00},
  INSUFFICIENT_REGISTRATION_RESOURCES: {key: ILLEGAL_REQUEST, asc: 0x55, ascq: 0x04},

  RESET_OCCURRED: {key: UNIT_ATTENTION, asc: 0x29, ascq: 0x00},
  UNIT_RESET_OCCURRED: {key: UNIT_ATTENTION, asc: 0x29, ascq: 0x03},
  MODE_PARAMETERS_CHANGED: {key: UNIT_ATTENTION, asc: 0x2a, ascq: 0x01},
  RESERVATIONS_PREEMPTED: {key: UNIT_ATTENTION, asc: 0x2a, ascq: 0x03},
  RESERVATIONS_RELEASED: {key: UNIT_ATTENTION, asc: 0x2a, ascq: 0x04},
  REGISTRATIONS_PREEMPTED: {key: UNIT_ATTENTION, asc: 0x2a, ascq: 0x05},
  CAPACITY_CHANGED: {key: UNIT_ATTENTION, asc: 0x2a, ascq: 0x09},
  COMMANDS_CLEARED: {key: UNIT_ATTENTION, asc: 0x2f, ascq: 0x00},

  SPACE_ALLOCATION_FAILED: {key: DATA_PROTECT, asc: 0x27, ascq: 0x07},
  SOFTWARE_WRITE_PROTECTED: {key: DATA_PROTECT, asc: 0x27, ascq: 0x02},

  COPY_ABORTED: {key: COPY_ABORTED, asc: 0x00, ascq: 0x00},
  UNREACHABLE_COPY_TARGET: {key: COPY_ABORTED, asc: 0x08, ascq: 0x04},
  COPY_DEVICE_FAILURE: {key: COPY_ABORTED, asc: 0x0d, ascq: 0x01},
  COPY_TARGET_NOT_REACHABLE: {key: COPY_ABORTED, asc: 0x0d, ascq: 0x02},

  ABORTED_COMMAND: {key: ABORTED_COMMAND, asc: 0x00, ascq: 0x00},

  MISCOMPARE: {key: MISCOMPARE, asc: 0x1d, ascq: 0x00},
} as const satisfies Record<string, Condition>

const FIXED_BYTES = 18
const TWO_TO_32 = 4294967296

export function encodeSense(condition: Condition, detail: SenseDetail, descriptors: boolean): Buffer {
  return descriptors ? encodeDescriptors(condition, detail) : encodeFixed(condition, detail)
}

function encodeFixed({key, asc, ascq, deferred = false}: Condition, detail: SenseDetail): Buffer {
  const sense = Buffer.alloc(FIXED_BYTES)
  sense[0] = deferred ? 0x71 : 0x70
  sense[2] = key
  sense[7] = FIXED_BYTES - 8
  sense[12] = asc
  sense[13] = ascq
  // What does not fit into the four bytes is left out: VALID says whether it is there.
  if (detail.information !== undefined && detail.information < TWO_TO_32) {
    sense[0] |= 0x80
    sense.writeUInt32BE(detail.information, 3)
  }
  writeKeySpecific(sense, 15, detail)
  return sense
}

function encodeDescriptors({key, asc, ascq, deferred = false}: Condition, detail: SenseDetail): Buffer {
  const parts = [Buffer.from([deferred ? 0x73 : 0x72, key, asc, ascq, 0, 0, 0, 0])]
  if (detail.information !== undefined) {
    const information = Buffer.from([0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    information.writeBigUInt64BE(BigInt(detail.information), 4)
    parts.push(information)
  }
  const specific = Buffer.from([0x02, 0x06, 0, 0, 0, 0, 0, 0])
  if (writeKeySpecific(specific, 4, detail)) parts.push(specific)
  const sense = Buffer.concat(parts)
  sense[7] = sense.length - 8
  return sense
}

/** A field pointer or a progress indication, three bytes. False when there is neither. */
function writeKeySpecific(into: Buffer, at: number, {field, progress}: SenseDetail): boolean {
  if (field !== undefined) {
    into[at] = 0x80 | (field.in === 'cdb' ? 0x40 : 0) | (field.bit === undefined ? 0 : 0x08 | field.bit)
    into.writeUInt16BE(field.byte, at + 1)
  } else if (progress !== undefined) {
    into[at] = 0x80
    into.writeUInt16BE(Math.min(0xffff, Math.floor(progress * 0x10000)), at + 1)
  }
  return field !== undefined || progress !== undefined
}
