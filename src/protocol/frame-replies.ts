// What a server of the data protocol sends: a header (frame.ts) with the sequence and offset of the request, then the payload.
import type {ByteStream} from '../lib/net/byte-stream.js'
import type {Extent} from './block-device.js'
import {EXTENT_ALLOCATED, EXTENT_BYTES, FRAME, FRAME_HEADER_BYTES, REPAIR_ANSWER_BYTES, writeFrameHeader} from './frame.js'

/** What a reply repeats of its request. */
export interface Answered {
  readonly sequence: number
  readonly frameOffset: number
  readonly frameSize: number
}

/** The header of a reply. `payload` bytes have to follow in this turn of the reactor. */
export function writeReply(stream: ByteStream, to: Answered, type: number, size: number, payload: number): void {
  const {output} = stream
  const slab = output.reserve(FRAME_HEADER_BYTES)
  writeFrameHeader(slab.buffer, output.reservedAt, to.sequence, type, to.frameOffset, size, payload)
  output.commit(FRAME_HEADER_BYTES)
  stream.flushSoon()
}

/** What went wrong, under one of the types for that. */
export function writeText(stream: ByteStream, to: Answered, type: number, text: string): void {
  const length = Buffer.byteLength(text)
  writeReply(stream, to, type, length, length)
  const {output} = stream
  output.reserve(length).buffer.write(text, output.reservedAt)
  output.commit(length)
}

/** The answer to BLOCK_STATUS, of at most MAX_EXTENTS. */
export function writeExtents(stream: ByteStream, to: Answered, extents: readonly Extent[]): void {
  const payload = extents.length * EXTENT_BYTES
  writeReply(stream, to, FRAME.RESPONSE, payload, payload)
  const {output} = stream
  const {buffer} = output.reserve(payload)
  let at = output.reservedAt
  for (const extent of extents) {
    buffer.writeUInt32LE(extent.length, at)
    buffer.writeUInt32LE(extent.allocated ? EXTENT_ALLOCATED : 0, at + 4)
    at += EXTENT_BYTES
  }
  output.commit(payload)
}

/** The answer to DIGEST. */
export function writeDigest(stream: ByteStream, to: Answered, digest: Buffer): void {
  writeReply(stream, to, FRAME.RESPONSE, digest.length, digest.length)
  const {output} = stream
  output.reserve(digest.length).buffer.set(digest, output.reservedAt)
  output.commit(digest.length)
}

/** The answer to REPAIR: the bytes that a frozen layer holds. */
export function writeRepaired(stream: ByteStream, to: Answered, left: number): void {
  writeReply(stream, to, FRAME.RESPONSE, to.frameSize, REPAIR_ANSWER_BYTES)
  const {output} = stream
  output.reserve(REPAIR_ANSWER_BYTES).buffer.writeUInt32LE(left, output.reservedAt)
  output.commit(REPAIR_ANSWER_BYTES)
}
