import {createCipheriv} from 'node:crypto'
import type {FileHandle} from 'node:fs/promises'
import type {ExtentScanner} from '../../lib/sys/file-extents.js'
import {readCachedAt} from '../../lib/sys/positioned-io.js'
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

/** What is read and hashed in one go: the event loop is not kept longer than that takes. Bytes. */
const CHUNK_BYTES = 128 * 1024
const freeChunks: Buffer[] = []
/** 96 bits. */
const NONCE = Buffer.alloc(12)
const NO_TEXT = {plaintextLength: 0}

/**
 * What tells a region of a layer from any other content, and from other holes: a hole lets what lies below shine through, zeros
 * do not. Poly1305 over each range of data in order: u32 offset in the region, u32 length, both little-endian, the bytes; to be exact, the tag of
 * ChaCha20-Poly1305 (RFC 8439) with these bytes as additional data, no text, and a nonce of zeros. Zeros for a region without data.
 *
 * Under a key that is picked at random for each comparison, and told to nobody else, two regions of 1 MiB that differ have the same digest with a probability
 * below 2^-86, whatever is in them (RFC 8439 section 4 has Poly1305's bound), and it takes a fifth of the time of SHA-256.
 *
 * The region is at most MAX_DIGEST_RANGE bytes, begins with a block and lies inside the file. Node's errors.
 *
 * Hashed in the event loop: the thread pool would have to be given a copy, and costs half as much again.
 */
export async function digestRegion(file: FileHandle, ranges: readonly Range[], offset: number, key: Buffer): Promise<Buffer> {
  if (ranges.length === 0) return EMPTY_DIGEST
  const digest = createCipheriv('chacha20-poly1305', key, NONCE, {authTagLength: DIGEST_BYTES})
  const header = Buffer.alloc(8)
  const chunk = freeChunks.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES)
  try {
    for (const range of ranges) {
      header.writeUInt32LE(range.offset - offset, 0)
      header.writeUInt32LE(range.length, 4)
      digest.setAAD(header, NO_TEXT)
      for (let done = 0; done < range.length; done += CHUNK_BYTES) {
        const bytes = Math.min(CHUNK_BYTES, range.length - done)
        await readFully(file, chunk, bytes, range.offset + done)
        digest.setAAD(chunk.subarray(0, bytes), NO_TEXT)
      }
    }
  } finally {
    freeChunks.push(chunk)
  }
  digest.final()
  return digest.getAuthTag()
}

/** At once what is in memory. Bytes past the end of the file read as zeros. */
async function readFully(file: FileHandle, into: Buffer, length: number, position: number): Promise<void> {
  let done = 0
  while (done < length) {
    let bytes = readCachedAt(file.fd, into, done, length - done, position + done)
    if (bytes < 0) ({bytesRead: bytes} = await file.read(into, done, length - done, position + done))
    if (bytes === 0) break
    done += bytes
  }
  into.fill(0, done, length)
}
