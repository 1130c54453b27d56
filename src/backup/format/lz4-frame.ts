// LZ4 frames (LZ4 Frame Format 1.6), as upstream writes them, and what there is to know of one before it is decompressed.
//
//   u32 LE magic 0x184d2204 | FLG | BD | [u64 content size] | [u32 dictionary] | header checksum
//   then blocks: u32 LE size, its highest bit set for one that is stored as it is | bytes | [u32 checksum]; a size of 0 ends
//   [u32 content checksum]
import {LonghornError} from '../../lib/errors.js'
import {lz4} from '../../lib/sys/liblz4.js'

const MAGIC = 0x184d2204
const FLG = {BLOCK_CHECKSUM: 0x10, CONTENT_SIZE: 0x08, DICTIONARY: 0x01} as const
/** What a byte of a compressed block can become at most. */
const MAX_EXPANSION = 255

export function isLz4Frame(content: Buffer): boolean {
  return content.length >= 7 && content.readUInt32LE(0) === MAGIC
}

/** One frame with independent blocks of 4 MiB and a content checksum; in `room`, where that will do. In the thread pool; `data` must not change meanwhile. */
export async function compressLz4(data: Buffer, room?: Buffer): Promise<Buffer> {
  if (lz4 !== undefined) return lz4.compress(data, room)
  const {compressFrame} = await import('lz4-napi')
  return compressFrame(data, {contentChecksum: true})
}

/** What a frame holds, which is to be `expectedBytes`; in `room`, where that will do. In the thread pool. Throws for one that is damaged, and CORRUPT for one that breaks off or holds far more. */
export async function decompressLz4(frame: Buffer, expectedBytes: number, room?: Buffer): Promise<Buffer> {
  checkFrame(frame, expectedBytes)
  if (lz4 !== undefined) return lz4.decompress(frame, expectedBytes, room)
  const {decompressFrame} = await import('lz4-napi')
  return decompressFrame(frame)
}

/**
 * Refuses a frame that could decompress to much more than `expectedBytes`: the decompressor takes whatever memory a frame asks for. Blocks of a frame say
 * how large they are compressed, and none becomes larger than the frame's block size. Throws CORRUPT, also for a frame that breaks off.
 */
export function checkFrame(frame: Buffer, expectedBytes: number): void {
  const flags = frame.readUInt8(4)
  const blockLimit = 4 ** ((frame.readUInt8(5) >> 4) & 7) * 256
  if (flags >> 6 !== 1 || blockLimit < 65_536) throw new LonghornError('CORRUPT', 'an lz4 frame of an unknown version')
  let at = 7 + (flags & FLG.CONTENT_SIZE ? 8 : 0) + (flags & FLG.DICTIONARY ? 4 : 0)
  let most = 0
  for (;;) {
    if (at + 4 > frame.length) throw new LonghornError('CORRUPT', 'the lz4 frame breaks off')
    const size = frame.readUInt32LE(at)
    at += 4
    if (size === 0) break
    const bytes = size & 0x7fff_ffff
    most += size >>> 31 === 1 ? bytes : Math.min(blockLimit, bytes * MAX_EXPANSION)
    at += bytes + (flags & FLG.BLOCK_CHECKSUM ? 4 : 0)
  }
  // A single small block in a frame for large ones is estimated too high, by one block at most.
  if (most > expectedBytes + 2 * blockLimit) throw new LonghornError('CORRUPT', `the lz4 frame may hold ${most} bytes where ${expectedBytes} are expected`)
}
