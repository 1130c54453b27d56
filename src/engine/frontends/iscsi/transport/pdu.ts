// iSCSI PDUs, RFC 7143 section 11. All numbers are big-endian, the digests little-endian. A PDU is
//   the basic header segment, 48 bytes; additional header segments; the header digest, if agreed;
//   data, padded to 4 bytes; the data digest, if agreed and there is data.
// What all basic header segments have in common, and where most of them have what they need besides:
//   0 u8 opcode (0x40: immediate)  1 u8 flags (0x80: final)  4 u8 words of additional headers  5 u24 bytes of data
//   8 u64 logical unit  16 u32 initiator task tag  20 u32 target transfer tag
//   from the initiator:  24 u32 CmdSN   28 u32 ExpStatSN
//   from the target:     24 u32 StatSN  28 u32 ExpCmdSN   32 u32 MaxCmdSN
import type {Slab} from '../../../../lib/net/slab.js'

export const HEADER_BYTES = 48
export const DIGEST_BYTES = 4
export const FINAL = 0x80
/** "None", of a task tag or a transfer tag; tags and sequence numbers are handled as signed 32-bit numbers, which are cheaper. */
export const NO_TAG = -1

/** Requests, from the initiator. */
export const REQUEST = {
  NOP_OUT: 0x00,
  SCSI_COMMAND: 0x01,
  TASK_MANAGEMENT: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
  SNACK: 0x10,
} as const

/** Responses, from the target. */
export const RESPONSE = {
  NOP_IN: 0x20,
  SCSI_RESPONSE: 0x21,
  TASK_MANAGEMENT: 0x22,
  LOGIN: 0x23,
  TEXT: 0x24,
  DATA_IN: 0x25,
  LOGOUT: 0x26,
  R2T: 0x31,
  ASYNC_MESSAGE: 0x32,
  REJECT: 0x3f,
} as const

/** Byte 1 of a SCSI Command. */
export const COMMAND_FLAG = {READ: 0x40, WRITE: 0x20, ATTRIBUTE: 0x07} as const
/** Byte 1 of Login and Text PDUs. */
export const TEXT_FLAG = {TRANSIT: 0x80, CONTINUE: 0x40} as const
/** Byte 1 of a SCSI Response and, with STATUS, of the last Data-In. */
export const RESIDUAL_FLAG = {OVERFLOW: 0x04, UNDERFLOW: 0x02, STATUS: 0x01} as const

/** Byte 2 of a Reject. */
export const REJECT = {
  DATA_DIGEST: 0x02,
  SNACK: 0x03,
  PROTOCOL: 0x04,
  NOT_SUPPORTED: 0x05,
  TOO_MANY_IMMEDIATE: 0x06,
  INVALID_FIELD: 0x09,
} as const
export type RejectReason = (typeof REJECT)[keyof typeof REJECT]

/** Byte 2 of a Logout Response. */
export const LOGOUT = {DONE: 0, NO_SUCH_CONNECTION: 1, NO_RECOVERY: 2} as const

/** Byte 36 of an Async Message. */
export const ASYNC_EVENT = {LOGOUT_REQUESTED: 1} as const

/** Bytes of an additional header: 0 u16 length of what follows byte 2  2 u8 type  3 … */
const EXTENDED_CDB = 1
const CDB_BYTES = 16

export function padded(bytes: number): number {
  return (bytes + 3) & ~3
}

/** True when `a` comes after `b` in serial number arithmetic. */
export function isAfter(a: number, b: number): boolean {
  return ((a - b) | 0) > 0
}

/** A PDU where it was received. One object serves a connection: what it shows is there only until the next one is read. */
export class IncomingPdu {
  view: DataView
  opcode = 0
  immediate = false
  flags = 0
  /** Bytes of additional headers. */
  additionalBytes = 0
  /** Bytes of data, without padding. */
  dataBytes = 0
  /** Where the data begins. */
  dataAt = 0

  constructor(
    public slab: Slab,
    public at = 0,
  ) {
    this.view = viewOf(slab)
  }

  /** Looks at the PDU whose header begins here. `digestBytes`: of the header digest. */
  read(slab: Slab, at: number, digestBytes: number): void {
    if (slab !== this.slab) {
      this.slab = slab
      this.view = viewOf(slab)
    }
    const {view} = this
    this.at = at
    const first = view.getUint16(at)
    this.opcode = (first >>> 8) & 0x3f
    this.immediate = (first & 0x4000) !== 0
    this.flags = first & 0xff
    const lengths = view.getUint32(at + 4)
    this.additionalBytes = (lengths >>> 24) * 4
    this.dataBytes = lengths & 0xffffff
    this.dataAt = at + HEADER_BYTES + this.additionalBytes + digestBytes
  }

  get isFinal(): boolean {
    return (this.flags & FINAL) !== 0
  }

  /** Byte 2. */
  get detail(): number {
    return this.view.getUint8(this.at + 2)
  }

  get taskTag(): number {
    return this.view.getInt32(this.at + 16)
  }

  /** The target transfer tag; the referenced task tag of a task management request; the expected length of a SCSI command. */
  get word20(): number {
    return this.view.getInt32(this.at + 20)
  }

  get cmdSN(): number {
    return this.view.getInt32(this.at + 24)
  }

  get lunHigh(): number {
    return this.view.getInt32(this.at + 8)
  }

  get lunLow(): number {
    return this.view.getInt32(this.at + 12)
  }

  /** A u32 at another offset. */
  word(offset: number): number {
    return this.view.getUint32(this.at + offset)
  }

  u16(offset: number): number {
    return this.view.getUint16(this.at + offset)
  }

  /** The header as it came, additional headers included, for a Reject; a view. */
  get header(): Buffer {
    return this.slab.buffer.subarray(this.at, this.at + HEADER_BYTES + this.additionalBytes)
  }

  /** The data as it came; a view, and all here only for a PDU that is read as a whole. */
  get data(): Buffer {
    return this.slab.buffer.subarray(this.dataAt, this.dataAt + this.dataBytes)
  }

  /** The logical unit number, or -1 when the eight bytes are no address of a single-level unit (SAM-5, 4.7). */
  get lun(): number {
    const high = this.view.getUint32(this.at + 8)
    if (this.view.getUint32(this.at + 12) !== 0 || (high & 0xffff) !== 0) return -1
    const first = high >>> 16
    const method = first >>> 14
    // 0: peripheral device, bus 0.  1: flat space.
    if (method === 0) return first <= 0xff ? first : -1
    return method === 1 ? first & 0x3fff : -1
  }

  /** Copies the command descriptor block to `to`, or gives a longer one made of the header and its extension. Undefined: the additional headers make no sense. */
  commandBlock(to: Buffer): Buffer | undefined {
    const {buffer} = this.slab
    const start = this.at + 32
    if (this.additionalBytes === 0) {
      buffer.copy(to, 0, start, start + CDB_BYTES)
      return to
    }
    return this.#extendedCommandBlock(buffer.subarray(start, start + CDB_BYTES))
  }

  #extendedCommandBlock(first: Buffer): Buffer | undefined {
    let block = Buffer.from(first)
    const end = this.at + HEADER_BYTES + this.additionalBytes
    let at = this.at + HEADER_BYTES
    while (at < end) {
      const bytes = 3 + this.view.getUint16(at)
      if (at + bytes > end || bytes < 4) return undefined
      if (this.view.getUint8(at + 2) === EXTENDED_CDB) {
        if (block.length > CDB_BYTES) return undefined
        block = Buffer.concat([block, this.slab.buffer.subarray(at + 4, at + bytes)])
      }
      at += padded(bytes)
    }
    return block
  }
}

/** The memory of a slab for reading and writing numbers, which a DataView does faster than a Buffer. */
export function viewOf({buffer}: Slab): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
}
