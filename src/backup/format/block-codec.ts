import {promisify} from 'node:util'
import {gunzip, gzip} from 'node:zlib'
import {LonghornError} from '../../lib/errors.js'
import {compressLz4, decompressLz4, isLz4Frame} from './lz4-frame.js'
import {blockSum} from './store-layout.js'

export const METHODS = ['lz4', 'gzip', 'none'] as const
export type CompressionMethod = (typeof METHODS)[number]

const gzipped = promisify(gzip)
const gunzipped = promisify(gunzip)

/** The method that a record names; '' is from before there was a choice. UNSUPPORTED for one that nobody can read. */
export function toMethod(name: string, where: string): CompressionMethod {
  const method = name === '' ? 'gzip' : METHODS.find(known => known === name)
  if (method !== undefined) return method
  throw new LonghornError('UNSUPPORTED', `${where}: compression method "${name}" is not known: expected one of ${METHODS.join(', ')}`)
}

/** The most bytes that the object of a block can have: random data grows a little when it is "compressed". */
export function maxObjectBytes(blockBytes: number): number {
  return blockBytes + Math.ceil(blockBytes / 64) + 4096
}

/** Whether an object of this size can be a block. An upload that upstream broke off can leave one of 0 bytes, which it then trusts for ever. */
export function isPlausible(sizeBytes: number, method: CompressionMethod, blockBytes: number): boolean {
  return method === 'none' ? sizeBytes === blockBytes : sizeBytes > 16 && sizeBytes <= maxObjectBytes(blockBytes)
}

/** The content of a block's object: one gzip member, or one LZ4 frame with independent blocks of 4 MiB and a content checksum, as upstream's. In the thread pool, and in `room`, where that will do. */
export async function encodeBlock(block: Buffer, method: CompressionMethod, room?: Buffer): Promise<Buffer> {
  switch (method) {
    case 'none':
      return block
    case 'gzip':
      return gzipped(block)
    case 'lz4':
      return compressLz4(block, room)
  }
}

/**
 * The block in an object, with its sum checked. What is compressed the other way than the record says is read as well: upstream changed its
 * default between backups of one volume. CORRUPT for what is damaged; `where` names the object.
 */
export async function decodeBlock(content: Buffer, method: CompressionMethod, blockBytes: number, sum: string, where: string): Promise<Buffer> {
  const block = await decompressBlock(content, method, blockBytes, where)
  if ((await blockSum(block)) !== sum) throw new LonghornError('CORRUPT', `checksum verification failed for block ${where}`, {key: where})
  return block
}

/** The same without the sum; in `room`, where that will do. */
export async function decompressBlock(content: Buffer, method: CompressionMethod, blockBytes: number, where: string, room?: Buffer): Promise<Buffer> {
  const block = await decompress(content, method, blockBytes, where, room)
  if (block.length !== blockBytes) throw new LonghornError('CORRUPT', `${where}: a block of ${block.length} bytes, not ${blockBytes}`, {key: where})
  return block
}

async function decompress(content: Buffer, method: CompressionMethod, blockBytes: number, where: string, room?: Buffer): Promise<Buffer> {
  if (method === 'none') return content
  try {
    if (isLz4Frame(content)) return await decompressLz4(content, blockBytes, room)
    if (content[0] === 0x1f && content[1] === 0x8b) return await gunzipped(content, {maxOutputLength: blockBytes})
  } catch (error) {
    throw new LonghornError('CORRUPT', `${where} cannot be decompressed: ${error instanceof Error ? error.message : String(error)}`, {key: where}, {cause: error})
  }
  throw new LonghornError('CORRUPT', `${where} is neither an lz4 frame nor gzip`, {key: where})
}
