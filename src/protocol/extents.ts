import {LonghornError} from '../lib/errors.js'
import type {Extent} from './block-device.js'
import {EXTENT_ALLOCATED, EXTENT_BYTES, MAX_EXTENTS} from './frame.js'

/** Reads the answer to a BLOCK_STATUS for `length` bytes from `offset` on: `bytes` of payload at `start`. Throws PROTOCOL. */
export function decodeExtents(from: Buffer, start: number, bytes: number, offset: number, length: number): Extent[] {
  if (bytes === 0 || bytes % EXTENT_BYTES !== 0 || bytes / EXTENT_BYTES > MAX_EXTENTS) {
    throw new LonghornError('PROTOCOL', `block status of ${bytes} bytes is not a list of extents`)
  }
  const extents: Extent[] = []
  let next = offset
  for (let at = start; at < start + bytes; at += EXTENT_BYTES) {
    const extent = {
      offset: next,
      length: from.readUInt32LE(at),
      allocated: (from.readUInt32LE(at + 4) & EXTENT_ALLOCATED) !== 0,
    }
    next += extent.length
    if (extent.length === 0 || next > offset + length) {
      throw new LonghornError('PROTOCOL', 'block status covers more than was asked, or nothing')
    }
    extents.push(extent)
  }
  return extents
}
