// iSCSI PDUs built and read by hand from RFC 7143, sharing nothing with the target: numbers stand here as the document gives them.

export const hex = (...parts: readonly string[]): Buffer => Buffer.from(parts.join('').replaceAll(' ', ''), 'hex')

export const OP = {
  NOP_OUT: 0x00,
  COMMAND: 0x01,
  TMF: 0x02,
  LOGIN: 0x03,
  TEXT: 0x04,
  DATA_OUT: 0x05,
  LOGOUT: 0x06,
  SNACK: 0x10,
  NOP_IN: 0x20,
  RESPONSE: 0x21,
  TMF_RESPONSE: 0x22,
  LOGIN_RESPONSE: 0x23,
  TEXT_RESPONSE: 0x24,
  DATA_IN: 0x25,
  LOGOUT_RESPONSE: 0x26,
  R2T: 0x31,
  ASYNC: 0x32,
  REJECT: 0x3f,
}

export const IMMEDIATE = 0x40
export const NONE = 0xffffffff

/** A PDU: fields by their offset in the header, `u32` unless the name says otherwise. */
export interface Pdu {
  readonly opcode: number
  readonly flags?: number
  readonly byte2?: number
  readonly byte3?: number
  /** Additional header segments, a multiple of four bytes. */
  readonly ahs?: Buffer
  readonly data?: Buffer
  /** Eight bytes at 8. */
  readonly lun?: Buffer
  readonly itt?: number
  readonly at20?: number
  readonly at24?: number
  readonly at28?: number
  readonly at32?: number
  readonly at36?: number
  readonly at40?: number
  readonly at44?: number
  /** Sixteen bytes at 32. */
  readonly cdb?: Buffer
}

/** What eight steps of the polynomial division make of each byte. */
const crcTable = Uint32Array.from({length: 256}, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})

/** CRC32C, byte by byte. */
export function slowCrc32c(bytes: Buffer): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (crcTable[(crc ^ byte) & 0xff] ?? 0)
  return ~crc >>> 0
}

export function digest(bytes: Buffer): Buffer {
  const result = Buffer.alloc(4)
  result.writeUInt32LE(slowCrc32c(bytes))
  return result
}

export interface Digests {
  readonly header?: boolean
  readonly data?: boolean
}

export function encode(pdu: Pdu, digests: Digests = {}): Buffer {
  const {data = Buffer.alloc(0), ahs = Buffer.alloc(0)} = pdu
  const header = Buffer.alloc(48)
  header[0] = pdu.opcode
  header[1] = pdu.flags ?? 0x80
  header[2] = pdu.byte2 ?? 0
  header[3] = pdu.byte3 ?? 0
  header.writeUInt32BE((ahs.length / 4) * 0x1000000 + data.length, 4)
  pdu.lun?.copy(header, 8)
  header.writeUInt32BE(pdu.itt ?? 0, 16)
  for (const [offset, value] of [[20, pdu.at20], [24, pdu.at24], [28, pdu.at28], [32, pdu.at32], [36, pdu.at36], [40, pdu.at40], [44, pdu.at44]] as const) {
    if (value !== undefined) header.writeUInt32BE(value >>> 0, offset)
  }
  pdu.cdb?.copy(header, 32)
  const headers = Buffer.concat([header, ahs])
  const padding = Buffer.alloc((4 - (data.length % 4)) % 4)
  const body = Buffer.concat([data, padding])
  return Buffer.concat([
    headers,
    digests.header === true ? digest(headers) : Buffer.alloc(0),
    body,
    digests.data === true && data.length > 0 ? digest(body) : Buffer.alloc(0),
  ])
}

/** A PDU that was received. */
export interface Received {
  readonly opcode: number
  readonly flags: number
  readonly byte2: number
  readonly byte3: number
  readonly itt: number
  readonly at20: number
  readonly statSN: number
  readonly expCmdSN: number
  readonly maxCmdSN: number
  readonly at36: number
  readonly at40: number
  readonly at44: number
  readonly header: Buffer
  readonly data: Buffer
}

/** The first PDU in `bytes` and its length; undefined when more is needed. Throws when a digest is wrong. */
export function decode(bytes: Buffer, digests: Digests = {}): {pdu: Received; length: number} | undefined {
  if (bytes.length < 48) return undefined
  const dataLength = bytes.readUInt32BE(4) & 0xffffff
  const headersEnd = 48 + bytes[4]! * 4
  const dataAt = headersEnd + (digests.header === true ? 4 : 0)
  const padded = Math.ceil(dataLength / 4) * 4
  const length = dataAt + padded + (digests.data === true && dataLength > 0 ? 4 : 0)
  if (bytes.length < length) return undefined
  if (digests.header === true && bytes.readUInt32LE(headersEnd) !== slowCrc32c(bytes.subarray(0, headersEnd))) throw new Error('wrong header digest')
  if (digests.data === true && dataLength > 0 && bytes.readUInt32LE(dataAt + padded) !== slowCrc32c(bytes.subarray(dataAt, dataAt + padded))) {
    throw new Error('wrong data digest')
  }
  const header = Buffer.from(bytes.subarray(0, 48))
  const u32 = (offset: number): number => header.readUInt32BE(offset)
  const pdu = {
    opcode: header[0]!,
    flags: header[1]!,
    byte2: header[2]!,
    byte3: header[3]!,
    itt: u32(16),
    at20: u32(20),
    statSN: u32(24),
    expCmdSN: u32(28),
    maxCmdSN: u32(32),
    at36: u32(36),
    at40: u32(40),
    at44: u32(44),
    header,
    data: Buffer.from(bytes.subarray(dataAt, dataAt + dataLength)),
  }
  return {pdu, length}
}

/** All PDUs in `bytes`; what is left over at the end is ignored. */
export function decodeAll(bytes: Buffer, digests: Digests = {}): Received[] {
  const pdus: Received[] = []
  for (let at = 0; ; ) {
    const next = decode(bytes.subarray(at), digests)
    if (next === undefined) return pdus
    pdus.push(next.pdu)
    at += next.length
  }
}

/** `key=value` pairs, each with its zero byte. */
export function text(pairs: Readonly<Record<string, string>>): Buffer {
  return Buffer.from(Object.entries(pairs).map(([key, value]) => `${key}=${value}\0`).join(''))
}

export function pairsOf(data: Buffer): Record<string, string> {
  const entries = data.toString().split('\0').filter(part => part !== '')
  return Object.fromEntries(entries.map(part => [part.slice(0, part.indexOf('=')), part.slice(part.indexOf('=') + 1)]))
}

/** A logical unit number as eight bytes, peripheral device addressing. */
export function lunBytes(lun: number): Buffer {
  return Buffer.from([0, lun, 0, 0, 0, 0, 0, 0])
}

export const ISID = hex('80 000001 0001')

export interface LoginFields {
  readonly transit?: boolean
  readonly moreFollows?: boolean
  readonly stage?: number
  readonly next?: number
  readonly isid?: Buffer
  readonly tsih?: number
  readonly cid?: number
  readonly itt?: number
  readonly cmdSN?: number
  readonly versionMin?: number
  readonly text?: Buffer | Readonly<Record<string, string>>
}

export function loginPdu(fields: LoginFields): Pdu {
  const {transit = true, moreFollows = false, stage = 1, next = 3, isid = ISID, tsih = 0, cid = 0, itt = 1, cmdSN = 1, versionMin = 0} = fields
  const data = fields.text === undefined ? Buffer.alloc(0) : Buffer.isBuffer(fields.text) ? fields.text : text(fields.text)
  const tsihBytes = Buffer.alloc(2)
  tsihBytes.writeUInt16BE(tsih)
  return {
    opcode: OP.LOGIN | IMMEDIATE,
    flags: (transit ? 0x80 | next : 0) | (moreFollows ? 0x40 : 0) | (stage << 2),
    byte3: versionMin,
    lun: Buffer.concat([isid, tsihBytes]),
    itt,
    at20: cid * 0x10000,
    at24: cmdSN,
    data,
  }
}

export function rw10(code: number, block: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(16)
  cdb[0] = code
  cdb.writeUInt32BE(block, 2)
  cdb.writeUInt16BE(blocks, 7)
  return cdb
}
