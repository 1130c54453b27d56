import {webcrypto} from 'node:crypto'
import type {FileHandle} from 'node:fs/promises'
import type {ExtentScanner} from '../../lib/sys/file-extents.js'
import {DIGEST_BYTES} from '../../protocol/frame.js'
import type {Range} from '../purge/copy-data.js'
import {BLOCK_BYTES} from '../sector-map.js'

/** Layers are compared and copied in regions of this size. Bytes. */
export const REGION_BYTES = 1024 * 1024

/** The digest of a region without data. */
export const EMPTY_DIGEST = Buffer.alloc(DIGEST_BYTES)

/** Where a layer has data in a range: whole blocks, but for the end of the layer; neighbours merged. */
export function blocksIn(scanner: ExtentScanner, fd: number, {offset, length}: Range): Range[] {
  const end = offset + length
  const ranges: {offset: number; length: number}[] = []
  scanner.scan(fd, offset, length, (from, bytes) => {
    const first = Math.floor(from / BLOCK_BYTES) * BLOCK_BYTES
    const last = Math.min(end, Math.ceil((from + bytes) / BLOCK_BYTES) * BLOCK_BYTES)
    const before = ranges.at(-1)
    if (before !== undefined && before.offset + before.length >= first) before.length = last - before.offset
    else ranges.push({offset: first, length: last - first})
  })
  return ranges
}

/**
 * What tells a region of a layer from any other content, and from other holes: a hole lets what lies below shine through, zeros
 * do not. SHA-256 over each range of data in order: u32 offset in the region, u32 length, both little-endian, the bytes. 32 zeros for
 * a region without data. The region is at most MAX_DIGEST_RANGE bytes, begins with a block and lies inside the file. Node's errors.
 */
export async function digestRegion(file: FileHandle, ranges: readonly Range[], offset: number): Promise<Buffer> {
  if (ranges.length === 0) return EMPTY_DIGEST
  const bytes = ranges.reduce((sum, range) => sum + 8 + range.length, 0)
  const content = Buffer.allocUnsafe(bytes)
  let at = 0
  for (const range of ranges) {
    content.writeUInt32LE(range.offset - offset, at)
    content.writeUInt32LE(range.length, at + 4)
    await readFully(file, content, at + 8, range.length, range.offset)
    at += 8 + range.length
  }
  return Buffer.from(await webcrypto.subtle.digest('SHA-256', content))
}

/** Bytes past the end of the file read as zeros. */
async function readFully(file: FileHandle, into: Buffer, start: number, length: number, position: number): Promise<void> {
  let done = 0
  while (done < length) {
    const {bytesRead} = await file.read(into, start + done, length - done, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  into.fill(0, start + done, start + length)
}
