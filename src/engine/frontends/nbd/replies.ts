// Replies of the transmission phase. A client that did not ask for structured replies gets, for each request:
//   0 u32 magic  4 u32 error  8 u64 cookie  16 data of a READ without error
// All others get chunks, the last of them marked as such:
//   0 u32 magic  4 u16 flags  6 u16 type  8 u64 cookie  16 u32 length of payload  20 payload
import type {SendQueue} from '../../../lib/net/send-queue.js'
import type {Extent} from '../../../protocol/block-device.js'
import {CHUNK, CHUNK_DONE, CHUNK_MAGIC, SIMPLE_REPLY_MAGIC, STATE} from './protocol.js'
import type {Request} from './requests.js'

const SIMPLE_REPLY_BYTES = 16
const CHUNK_HEADER_BYTES = 20
const TWO_TO_32 = 4294967296

/** More extents are left for the client's next question; the protocol itself asks for at most 2^20. */
const MAX_EXTENTS = 8192

export function writeSimpleReply(output: SendQueue, request: Request, error: number): void {
  const {buffer} = output.reserve(SIMPLE_REPLY_BYTES)
  const at = output.reservedAt
  buffer.writeUInt32BE(SIMPLE_REPLY_MAGIC, at)
  buffer.writeUInt32BE(error, at + 4)
  buffer.writeInt32BE(request.cookieHigh, at + 8)
  buffer.writeInt32BE(request.cookieLow, at + 12)
  output.commit(SIMPLE_REPLY_BYTES)
}

/** The last chunk of a request that went well. */
export function writeDone(output: SendQueue, request: Request): void {
  const {buffer} = output.reserve(CHUNK_HEADER_BYTES)
  writeHeader(buffer, output.reservedAt, CHUNK_DONE, CHUNK.NONE, request, 0)
  output.commit(CHUNK_HEADER_BYTES)
}

/** 20 u64 offset  28 data: `length` bytes, which the caller pushes next. */
export function writeDataHeader(output: SendQueue, request: Request, offset: number, length: number, isLast: boolean): void {
  const {buffer} = output.reserve(CHUNK_HEADER_BYTES + 8)
  const at = output.reservedAt
  writeHeader(buffer, at, isLast ? CHUNK_DONE : 0, CHUNK.OFFSET_DATA, request, 8 + length)
  buffer.writeUInt32BE(Math.floor(offset / TWO_TO_32), at + 20)
  buffer.writeUInt32BE(offset % TWO_TO_32, at + 24)
  output.commit(CHUNK_HEADER_BYTES + 8)
}

/** The last chunk of a request that failed: 20 u32 error  24 u16 length of text  26 text for people. */
export function writeError(output: SendQueue, request: Request, error: number, text: string): void {
  const textBytes = Buffer.byteLength(text)
  const length = CHUNK_HEADER_BYTES + 6 + textBytes
  const {buffer} = output.reserve(length)
  const at = output.reservedAt
  writeHeader(buffer, at, CHUNK_DONE, CHUNK.ERROR, request, 6 + textBytes)
  buffer.writeUInt32BE(error, at + 20)
  buffer.writeUInt16BE(textBytes, at + 24)
  buffer.write(text, at + 26)
  output.commit(length)
}

/** 20 u32 context  24 per extent: u32 length, u32 state. `extents` are at least one, and lie in the requested range. */
export function writeBlockStatus(output: SendQueue, request: Request, context: number, extents: readonly Extent[], most = MAX_EXTENTS): void {
  const count = Math.min(extents.length, most)
  const length = CHUNK_HEADER_BYTES + 4 + 8 * count
  const {buffer} = output.reserve(length)
  const at = output.reservedAt
  writeHeader(buffer, at, CHUNK_DONE, CHUNK.BLOCK_STATUS, request, 4 + 8 * count)
  buffer.writeUInt32BE(context, at + 20)
  for (let index = 0; index < count; index++) {
    const extent = extents[index]!
    buffer.writeUInt32BE(extent.length, at + 24 + 8 * index)
    buffer.writeUInt32BE(extent.allocated ? 0 : STATE.HOLE | STATE.ZERO, at + 28 + 8 * index)
  }
  output.commit(length)
}

function writeHeader(buffer: Buffer, at: number, flags: number, type: number, request: Request, length: number): void {
  buffer.writeUInt32BE(CHUNK_MAGIC, at)
  buffer.writeUInt16BE(flags, at + 4)
  buffer.writeUInt16BE(type, at + 6)
  buffer.writeInt32BE(request.cookieHigh, at + 8)
  buffer.writeInt32BE(request.cookieLow, at + 12)
  buffer.writeUInt32BE(length, at + 16)
}
