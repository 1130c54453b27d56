// How a client and an NBD server come to terms about an export. Fixed newstyle; all numbers are big-endian:
//   server: "NBDMAGIC" "IHAVEOPT" u16 flags
//   client: u32 flags
//   client: "IHAVEOPT" u32 option u32 length data          INFO and GO: u32 length of name, name, u16 count of requests
//   server: u64 0x3e889045565a9 u32 option u32 type u32 length data, until NBD_REP_ACK or an error (bit 31)
//   NBD_REP_INFO data: u16 type …                          NBD_INFO_EXPORT: u64 size, u16 transmission flags
// After INFO the client says what it wants next, NBD_OPT_ABORT for instance; after GO the connection carries requests.
import {HANDSHAKE, INFO, OPTION, OPTION_REPLY, OPTION_REPLY_MAGIC, TRANSMISSION} from '../../engine/frontends/nbd/protocol.js'
import {LonghornError} from '../../lib/errors.js'

const SERVER_MAGIC = Buffer.from('NBDMAGICIHAVEOPT')
const IHAVEOPT = SERVER_MAGIC.subarray(8)
/** Reply types from here on are errors. */
const FIRST_ERROR = 0x8000_0000
const GREETING_BYTES = SERVER_MAGIC.length + 2
const REPLY_HEADER_BYTES = 20
/** The one transmission flag that our own server has no use for. */
const READ_ONLY = 1 << 1
/** The longest reply that makes sense here. */
const MAX_REPLY_BYTES = 64 * 1024

/** What a server says about an export. */
export interface NbdExport {
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly canFlush: boolean
  readonly canTrim: boolean
  readonly canWriteZeroes: boolean
  /** The transmission flags as they came. */
  readonly flags: number
}

/**
 * The client's side, without the connection. It yields bytes to be sent, or the number of bytes that it wants to be
 * given next. Throws NOT_FOUND (no such export) or PROTOCOL.
 */
export function* negotiate(option: 'INFO' | 'GO', exportName: string): Generator<Buffer | number, NbdExport, Buffer> {
  const greeting = yield GREETING_BYTES
  if (!greeting.subarray(0, SERVER_MAGIC.length).equals(SERVER_MAGIC)) throw new LonghornError('PROTOCOL', 'this is not an NBD server of today')
  const flags = Buffer.alloc(4)
  flags.writeUInt32BE(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES)
  yield Buffer.concat([flags, encodeOption(OPTION[option], encodeQuery(exportName))])
  for (let found: NbdExport | undefined; ; ) {
    const header = yield REPLY_HEADER_BYTES
    const type = header.readUInt32BE(12)
    const length = header.readUInt32BE(16)
    if (header.readUInt32BE() !== OPTION_REPLY_MAGIC.high || header.readUInt32BE(4) !== OPTION_REPLY_MAGIC.low) throw new LonghornError('PROTOCOL', 'bad magic number in a reply')
    if (length > MAX_REPLY_BYTES) throw new LonghornError('PROTOCOL', `reply of ${length} bytes exceeds ${MAX_REPLY_BYTES}`)
    const data = yield length
    if (type === OPTION_REPLY.ERR_UNKNOWN) throw new LonghornError('NOT_FOUND', `there is no export "${exportName}"`)
    if (type >= FIRST_ERROR) throw new LonghornError('PROTOCOL', `error ${type - FIRST_ERROR} about export "${exportName}" ${data.toString('utf8')}`.trim())
    if (type === OPTION_REPLY.INFO && data.length === 12 && data.readUInt16BE() === INFO.EXPORT) found = decodeExport(data)
    if (type !== OPTION_REPLY.ACK) continue
    if (found === undefined) throw new LonghornError('PROTOCOL', `nothing said about export "${exportName}"`)
    return found
  }
}

export function encodeOption(number: number, data: Buffer): Buffer {
  const header = Buffer.alloc(16)
  IHAVEOPT.copy(header)
  header.writeUInt32BE(number, 8)
  header.writeUInt32BE(data.length, 12)
  return Buffer.concat([header, data])
}

function encodeQuery(exportName: string): Buffer {
  const name = Buffer.from(exportName)
  const query = Buffer.alloc(4 + name.length + 2)
  query.writeUInt32BE(name.length)
  name.copy(query, 4)
  return query
}

function decodeExport(data: Buffer): NbdExport {
  const sizeBytes = Number(data.readBigUInt64BE(2))
  if (!Number.isSafeInteger(sizeBytes)) throw new LonghornError('PROTOCOL', `an export of ${data.readBigUInt64BE(2)} bytes is too large`)
  const flags = data.readUInt16BE(10)
  return {
    sizeBytes,
    readOnly: (flags & READ_ONLY) !== 0,
    canFlush: (flags & TRANSMISSION.SEND_FLUSH) !== 0,
    canTrim: (flags & TRANSMISSION.SEND_TRIM) !== 0,
    canWriteZeroes: (flags & TRANSMISSION.SEND_WRITE_ZEROES) !== 0,
    flags,
  }
}
