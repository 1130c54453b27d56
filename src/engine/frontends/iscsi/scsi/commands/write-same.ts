import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import {checkProtection, rangeOf, type ByteRange, type Layout} from '../cdb.js'
import {checkDataLength, receiveParameters} from '../data/incoming.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES, LIMIT} from '../geometry.js'

const ANCHOR = 0x10
const UNMAP = 0x08
const NDOB = 0x01

/**
 * WRITE SAME(10) and (16). Zeros are written without sending them around, and with UNMAP, which only (16) has, their space is
 * given back. Other data is written, UNMAP or not: reads must return it, and unmapped blocks read as zeros.
 */
export async function writeSame(disk: Disk, task: ScsiTask, layout: Layout): Promise<number> {
  const {cdb} = task
  checkProtection(cdb)
  const flags = cdb[1]!
  if ((flags & ANCHOR) !== 0) throw invalidField(1, 4)
  const {offset, length} = sameRange(disk, cdb, layout)
  const noData = (flags & NDOB) !== 0
  checkDataLength(task, noData ? 0 : BLOCK_BYTES)
  const block = noData ? Buffer.alloc(BLOCK_BYTES) : await receiveParameters(task, BLOCK_BYTES)
  const io = disk.ioFor(task)
  if (isZero(block)) await io.zero(offset, length, {unmap: (flags & UNMAP) !== 0})
  else await io.fill(offset, length, block)
  return noData ? 0 : BLOCK_BYTES
}

/** A length of 0 means up to the end of the disk. */
function sameRange({blocks}: Disk, cdb: Buffer, layout: Layout): ByteRange {
  const range = rangeOf(cdb, layout, blocks, LIMIT.WRITE_SAME)
  if (range.length > 0) return range
  const length = blocks * BLOCK_BYTES - range.offset
  if (length > LIMIT.WRITE_SAME * BLOCK_BYTES) throw invalidField(layout.blocksAt)
  return {offset: range.offset, length}
}

function isZero(block: Buffer): boolean {
  return block.every(byte => byte === 0)
}
