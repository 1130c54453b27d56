// UNMAP. CDB: 1 ANCHOR  7 parameter list length (2). Parameter list:
//   0 length of the rest (2)  2 length of the descriptors (2)  8 descriptors: LBA (8)  number of blocks (4)  reserved (4)
import type {ScsiTask} from '../../scsi-task.js'
import {CheckCondition, invalidField, invalidParameter} from '../check-condition.js'
import {readAddress, type ByteRange} from '../cdb.js'
import {receiveParameters} from '../data/incoming.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES, LIMIT} from '../geometry.js'
import {CONDITION} from '../sense.js'

const ANCHOR = 0x01
const HEADER_BYTES = 8
const DESCRIPTOR_BYTES = 16

/**
 * Carried out as writing zeros that may give space back, not as a discard: a discard leaves alone what snapshots hold,
 * and then a block could read as old data, and differently after a snapshot is gone. The price is space for the zeros where a
 * snapshot holds data. What lies only partly in one of the volume's own blocks is written.
 */
export async function unmap(disk: Disk, task: ScsiTask): Promise<number> {
  const {cdb} = task
  if ((cdb[1]! & ANCHOR) !== 0) throw invalidField(1, 0)
  const length = cdb.readUInt16BE(7)
  if (length === 0) return 0
  if (length < HEADER_BYTES) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const list = await receiveParameters(task, length)
  const io = disk.ioFor(task)
  // All is looked at before anything is unmapped.
  for (const range of rangesOf(list, disk.blocks)) await io.zero(range.offset, range.length, {unmap: true})
  return length
}

function rangesOf(list: Buffer, blocks: number): ByteRange[] {
  // A descriptor that is cut off is not one.
  const count = Math.floor(Math.min(list.readUInt16BE(2), list.length - HEADER_BYTES) / DESCRIPTOR_BYTES)
  if (count > LIMIT.UNMAP_DESCRIPTORS) throw invalidParameter(2)
  const ranges: ByteRange[] = []
  let total = 0
  for (let index = 0; index < count; index++) {
    const at = HEADER_BYTES + index * DESCRIPTOR_BYTES
    const lba = readAddress(list, at)
    const number = list.readUInt32BE(at + 8)
    total += number
    if (total > LIMIT.UNMAP) throw invalidParameter(at + 8)
    if (lba + number > blocks) throw new CheckCondition(CONDITION.LBA_OUT_OF_RANGE)
    if (number > 0) ranges.push({offset: lba * BLOCK_BYTES, length: number * BLOCK_BYTES})
  }
  return ranges
}
