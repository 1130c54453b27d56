// What the disk looks like, and what one command may ask of it: facts that several answers repeat.
import type {BlockDevice} from '../../../../protocol/block-device.js'

/** The unit of addresses on the wire. Initiators everywhere take 512; fewer take 4096. */
export const BLOCK_BYTES = 512
/** 2 to this power logical blocks are one of the 4096 bytes in which the volume keeps its data. */
export const BLOCKS_PER_PHYSICAL_EXPONENT = 3
export const BLOCKS_PER_PHYSICAL = 1 << BLOCKS_PER_PHYSICAL_EXPONENT

/** The limits that the block limits page publishes, in blocks. What exceeds them is refused. */
export const LIMIT = {
  /** 32 MiB. */
  TRANSFER: 65536,
  /** 1 MiB: larger ones are not served faster. */
  OPTIMAL_TRANSFER: 2048,
  /** 128 KiB, one request: replicas have a journal for it, and databases that find it do without protection of their own. */
  ATOMIC: 256,
  /** What its one-byte field can say. */
  COMPARE_AND_WRITE: 255,
  /** 512 MiB. */
  UNMAP: 1024 * 1024,
  UNMAP_DESCRIPTORS: 256,
  /** 2 GiB. */
  WRITE_SAME: 4 * 1024 * 1024,
} as const

export function blockCount(device: BlockDevice): number {
  return Math.floor(device.sizeBytes / BLOCK_BYTES)
}
