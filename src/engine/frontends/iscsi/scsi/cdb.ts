// Reading fields of command descriptor blocks. All integers are big-endian.
import {CheckCondition, invalidField} from './check-condition.js'
import {BLOCK_BYTES, LIMIT} from './geometry.js'
import {CONDITION} from './sense.js'

const TWO_TO_32 = 4294967296

/**
 * A 64-bit address. Those above 2^53 lose digits, which does not matter: they are far beyond the end of any volume, and
 * the comparison that finds this out still does.
 */
export function readAddress(from: Buffer, at: number): number {
  return from.readUInt32BE(at) * TWO_TO_32 + from.readUInt32BE(at + 4)
}

/** Where a family of commands keeps its address and length, by the length of the CDB. */
export interface Layout {
  lba(cdb: Buffer): number
  blocks(cdb: Buffer): number
  /** Offset of the length field, for field pointers. */
  readonly blocksAt: number
}

export const LAYOUT_6: Layout = {
  lba: cdb => cdb.readUInt32BE(0) & 0x1fffff,
  blocks: cdb => cdb[4]! || 256,
  blocksAt: 4,
}

export const LAYOUT_10: Layout = {
  lba: cdb => cdb.readUInt32BE(2),
  blocks: cdb => cdb.readUInt16BE(7),
  blocksAt: 7,
}

export const LAYOUT_12: Layout = {
  lba: cdb => cdb.readUInt32BE(2),
  blocks: cdb => cdb.readUInt32BE(6),
  blocksAt: 6,
}

export const LAYOUT_16: Layout = {
  lba: cdb => readAddress(cdb, 2),
  blocks: cdb => cdb.readUInt32BE(10),
  blocksAt: 10,
}

/** A part of the disk, in bytes. */
export interface ByteRange {
  readonly offset: number
  readonly length: number
}

/** The blocks that a command is about. Throws when they are not all on a disk of `blocks` blocks, or are more than `limit`. */
export function rangeOf(cdb: Buffer, layout: Layout, blocks: number, limit: number = LIMIT.TRANSFER): ByteRange {
  const lba = layout.lba(cdb)
  const count = layout.blocks(cdb)
  if (lba + count > blocks) throw new CheckCondition(CONDITION.LBA_OUT_OF_RANGE)
  if (count > limit) throw invalidField(layout.blocksAt)
  return {offset: lba * BLOCK_BYTES, length: count * BLOCK_BYTES}
}

/** RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT: there is no protection information here. */
export function checkProtection(cdb: Buffer): void {
  if ((cdb[1]! & 0xe0) !== 0) throw invalidField(1, 7)
}

/** DPO is taken as the hint that it is; FUA means what it says. */
export const FUA = 0x08
