import type {Slab} from '../../../../../lib/net/slab.js'
import type {ScsiTask} from '../../scsi-task.js'
import {CheckCondition, invalidField} from '../check-condition.js'
import {checkProtection, rangeOf, type ByteRange, type Layout} from '../cdb.js'
import {checkDataLength, receiveParameters, receiveParts, type Part} from '../data/incoming.js'
import type {BlockIo} from '../data/block-io.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES} from '../geometry.js'
import {CONDITION} from '../sense.js'

/** BYTCHK: is the medium readable; does it hold this data; does every block hold this one block. */
const CHECK = {MEDIUM: 0, DATA: 1, RESERVED: 2, BLOCK: 3} as const

/** VERIFY(10), (12), (16). Returns the bytes received. */
export async function verify(disk: Disk, task: ScsiTask, layout: Layout): Promise<number> {
  checkProtection(task.cdb)
  const check = byteCheck(task.cdb)
  const range = rangeOf(task.cdb, layout, disk.blocks)
  const io = disk.ioFor(task)
  switch (check) {
    case CHECK.DATA:
      checkDataLength(task, range.length)
      await receiveParts(task, range.length, part => compare(io, range, part))
      return range.length
    case CHECK.BLOCK:
      return verifyBlock(io, task, range)
    default:
      await io.readEach(range.offset, range.length, () => undefined)
      return 0
  }
}

/** WRITE AND VERIFY(10), (12), (16): what is verified is what is on the medium, so it is flushed there first. */
export async function writeAndVerify(disk: Disk, task: ScsiTask, layout: Layout): Promise<number> {
  checkProtection(task.cdb)
  const check = byteCheck(task.cdb)
  if (check === CHECK.BLOCK) throw invalidField(1, 2)
  const {offset, length} = rangeOf(task.cdb, layout, disk.blocks)
  const io = disk.ioFor(task)
  // The initiator may send less than all: then so much is written, as with WRITE.
  await receiveParts(task, length, async part => {
    const at = {offset: offset + part.offset, length: part.length}
    await io.writeSlab(at.offset, part.slab, part.start, at.length, {fua: true})
    if (check === CHECK.DATA) await compare(io, {offset, length}, part)
    else await io.readEach(at.offset, at.length, () => undefined)
  })
  return length
}

function byteCheck(cdb: Buffer): number {
  const check = (cdb[1]! >> 1) & 3
  if (check === CHECK.RESERVED) throw invalidField(1, 2)
  return check
}

async function verifyBlock(io: BlockIo, task: ScsiTask, {offset, length}: ByteRange): Promise<number> {
  if (length === 0) return 0
  checkDataLength(task, BLOCK_BYTES)
  const block = await receiveParameters(task, BLOCK_BYTES)
  let mismatch = Infinity
  await io.readEach(offset, length, (slab, start, count, at) => {
    for (let done = 0; done < count; done += BLOCK_BYTES) {
      const index = firstDifference(slab.buffer, start + done, block, 0, BLOCK_BYTES)
      if (index !== -1) mismatch = Math.min(mismatch, at - offset + done + index)
    }
  })
  // Counted from the beginning of the data-out buffer, which is one block.
  if (mismatch !== Infinity) throw miscompare(mismatch % BLOCK_BYTES)
  return BLOCK_BYTES
}

/** Compares a part of the data with what the device holds. */
async function compare(io: BlockIo, range: ByteRange, {slab, start, length, offset}: Part): Promise<void> {
  let mismatch = Infinity
  const onRead = (read: Slab, readStart: number, count: number, at: number): void => {
    const within = at - range.offset - offset
    const index = firstDifference(read.buffer, readStart, slab.buffer, start + within, count)
    if (index !== -1) mismatch = Math.min(mismatch, offset + within + index)
  }
  await io.readEach(range.offset + offset, length, onRead)
  if (mismatch !== Infinity) throw miscompare(mismatch)
}

export function miscompare(offset: number): CheckCondition {
  return new CheckCondition(CONDITION.MISCOMPARE, {information: offset})
}

/** Index of the first byte in which two pieces of memory differ; -1 when they are the same. */
export function firstDifference(a: Buffer, aStart: number, b: Buffer, bStart: number, length: number): number {
  if (a.compare(b, bStart, bStart + length, aStart, aStart + length) === 0) return -1
  let index = 0
  while (a[aStart + index] === b[bStart + index]) index++
  return index
}
