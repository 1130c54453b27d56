// What a server says before the transmission phase.
//   greeting  0 u64 NBDMAGIC  8 u64 IHAVEOPT  16 u16 handshake flags
//   reply     0 u64 magic  8 u32 option  12 u32 type  16 u32 length of data  20 data
import type {SendQueue} from '../../../lib/net/send-queue.js'
import {GREETING_MAGIC, HANDSHAKE, INFO, MAX_PAYLOAD_BYTES, OPTION_MAGIC, type OPTION_REPLY, OPTION_REPLY_MAGIC, PREFERRED_BLOCK_BYTES} from './protocol.js'

const GREETING_BYTES = 18
const REPLY_HEADER_BYTES = 20
/** What EXPORT_NAME's answer ends with, unless both sides agreed to leave it out. */
const RESERVED_ZEROES = 124
const TWO_TO_32 = 4294967296

export function writeGreeting(output: SendQueue): void {
  const greeting = Buffer.alloc(GREETING_BYTES)
  greeting.writeUInt32BE(GREETING_MAGIC.high, 0)
  greeting.writeUInt32BE(GREETING_MAGIC.low, 4)
  greeting.writeUInt32BE(OPTION_MAGIC.high, 8)
  greeting.writeUInt32BE(OPTION_MAGIC.low, 12)
  greeting.writeUInt16BE(HANDSHAKE.FIXED_NEWSTYLE | HANDSHAKE.NO_ZEROES, 16)
  append(output, greeting)
}

export function writeOptionReply(output: SendQueue, option: number, type: number, data?: Buffer): void {
  const header = Buffer.alloc(REPLY_HEADER_BYTES)
  header.writeUInt32BE(OPTION_REPLY_MAGIC.high, 0)
  header.writeUInt32BE(OPTION_REPLY_MAGIC.low, 4)
  header.writeUInt32BE(option, 8)
  header.writeUInt32BE(type, 12)
  header.writeUInt32BE(data?.length ?? 0, 16)
  append(output, header)
  if (data !== undefined) append(output, data)
}

/** The end of the handshake with EXPORT_NAME: 0 u64 size  8 u16 transmission flags, zeroes. It has no header. */
export function writeExport(output: SendQueue, sizeBytes: number, flags: number, withZeroes: boolean): void {
  const answer = Buffer.alloc(10 + (withZeroes ? RESERVED_ZEROES : 0))
  writeU64(answer, sizeBytes, 0)
  answer.writeUInt16BE(flags, 8)
  append(output, answer)
}

/** 0 u32 length of name  4 name. */
export function serverData(name: string): Buffer {
  const text = Buffer.from(name)
  const data = Buffer.alloc(4 + text.length)
  data.writeUInt32BE(text.length, 0)
  text.copy(data, 4)
  return data
}

/** 0 u16 EXPORT  2 u64 size  10 u16 transmission flags. */
export function exportData(sizeBytes: number, flags: number): Buffer {
  const data = Buffer.alloc(12)
  data.writeUInt16BE(INFO.EXPORT, 0)
  writeU64(data, sizeBytes, 2)
  data.writeUInt16BE(flags, 10)
  return data
}

/** 0 u16 NAME or DESCRIPTION  2 text. */
export function textData(info: number, text: string): Buffer {
  const data = Buffer.alloc(2 + Buffer.byteLength(text))
  data.writeUInt16BE(info, 0)
  data.write(text, 2)
  return data
}

/** 0 u16 BLOCK_SIZE  2 u32 minimum  6 u32 preferred  10 u32 largest payload. */
export function blockSizeData(): Buffer {
  const data = Buffer.alloc(14)
  data.writeUInt16BE(INFO.BLOCK_SIZE, 0)
  data.writeUInt32BE(1, 2)
  data.writeUInt32BE(PREFERRED_BLOCK_BYTES, 6)
  data.writeUInt32BE(MAX_PAYLOAD_BYTES, 10)
  return data
}

/** 0 u32 id  4 name. */
export function metaContextData(id: number, name: string): Buffer {
  const data = Buffer.alloc(4 + Buffer.byteLength(name))
  data.writeUInt32BE(id, 0)
  data.write(name, 4)
  return data
}

export type OptionError = (typeof OPTION_REPLY)['ERR_UNSUP' | 'ERR_INVALID' | 'ERR_UNKNOWN' | 'ERR_TOO_BIG']

/** Refuses an option; `text` is shown to whoever runs the client. */
export function writeOptionError(output: SendQueue, option: number, type: OptionError, text: string): void {
  writeOptionReply(output, option, type, Buffer.from(text))
}

function writeU64(into: Buffer, value: number, at: number): void {
  into.writeUInt32BE(Math.floor(value / TWO_TO_32), at)
  into.writeUInt32BE(value % TWO_TO_32, at + 4)
}

function append(output: SendQueue, bytes: Buffer): void {
  bytes.copy(output.reserve(bytes.length).buffer, output.reservedAt)
  output.commit(bytes.length)
}
