// Bytes of the NBD protocol, built by hand from its document and sharing nothing with the server: numbers stand here as
// the document gives them.

export const u16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

export const hex = (...parts: readonly string[]): Buffer => Buffer.from(parts.join('').replaceAll(' ', ''), 'hex')

/** Options by their numbers in the document. */
export const OPT = {EXPORT_NAME: 1, ABORT: 2, LIST: 3, STARTTLS: 5, INFO: 6, GO: 7, STRUCTURED_REPLY: 8, LIST_META_CONTEXT: 9, SET_META_CONTEXT: 10, EXTENDED_HEADERS: 11}

export const REP = {ACK: 1, SERVER: 2, INFO: 3, META_CONTEXT: 4, ERR_UNSUP: 2 ** 31 + 1, ERR_INVALID: 2 ** 31 + 3, ERR_UNKNOWN: 2 ** 31 + 6, ERR_TOO_BIG: 2 ** 31 + 9}

export const CMD = {READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, WRITE_ZEROES: 6, BLOCK_STATUS: 7}

export const FLAG = {FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16}

export const ERR = {EPERM: 1, EIO: 5, EINVAL: 22, ENOSPC: 28, EOVERFLOW: 75, ESHUTDOWN: 108}

/** `IHAVEOPT`, option, length, data. */
export function option(code: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(code), u32(data.length), data])
}

export function infoData(name: string, ...wanted: readonly number[]): Buffer {
  return Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), u16(wanted.length), ...wanted.map(u16)])
}

export function metaData(name: string, ...queries: readonly string[]): Buffer {
  const list = queries.flatMap(query => [u32(Buffer.byteLength(query)), Buffer.from(query)])
  return Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), u32(queries.length), ...list])
}

export interface RequestFields {
  readonly command: number
  readonly offset?: number | bigint
  readonly length?: number
  readonly flags?: number
  readonly cookie?: bigint
  readonly payload?: Buffer
}

export function request({command, offset = 0, length, flags = 0, cookie = 0n, payload = Buffer.alloc(0)}: RequestFields): Buffer {
  const header = [u32(0x25609513), u16(flags), u16(command), u64(cookie), u64(offset), u32(length ?? payload.length)]
  return Buffer.concat([...header, payload])
}

/** The client's half of a handshake that ends in the transmission phase with everything there is. */
export function fullHandshake(name = ''): Buffer {
  return Buffer.concat([
    u32(3),
    option(OPT.STRUCTURED_REPLY),
    option(OPT.SET_META_CONTEXT, metaData(name, 'base:allocation')),
    option(OPT.GO, infoData(name, 3)),
  ])
}

/** A reply to an option. */
export interface OptionReply {
  readonly option: number
  readonly type: number
  readonly data: Buffer
}

/** A chunk of a structured reply. */
export interface Chunk {
  readonly cookie: bigint
  readonly isLast: boolean
  readonly type: number
  readonly payload: Buffer
}
