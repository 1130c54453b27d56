import type {ScsiTask} from '../../scsi-task.js'
import {checkProtection, FUA, rangeOf, readAddress, type Layout} from '../cdb.js'
import {CheckCondition, invalidField} from '../check-condition.js'
import {checkDataLength, receiveParameters} from '../data/incoming.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES, BLOCKS_PER_PHYSICAL, LIMIT} from '../geometry.js'
import {CONDITION} from '../sense.js'

const LBA_AT = 2
const ATOMIC_LAYOUT: Layout = {lba: cdb => readAddress(cdb, LBA_AT), blocks: cdb => cdb.readUInt16BE(12), blocksAt: 12}
const ATOMIC_BYTES = BLOCKS_PER_PHYSICAL * BLOCK_BYTES

/**
 * WRITE ATOMIC(16): all of the data or none of it, whoever reads meanwhile and whatever fails. It is one request, which begins
 * when all of its data is here. A single block of the volume is written within a page; for more, replicas have a journal.
 */
export async function writeAtomic(disk: Disk, task: ScsiTask): Promise<number> {
  const {cdb} = task
  checkProtection(cdb)
  const {offset, length} = rangeOf(cdb, ATOMIC_LAYOUT, disk.blocks, LIMIT.ATOMIC)
  if (length === 0) return 0
  if (offset % ATOMIC_BYTES !== 0) throw invalidField(LBA_AT)
  if (length % ATOMIC_BYTES !== 0) throw invalidField(ATOMIC_LAYOUT.blocksAt)
  checkDataLength(task, length)
  const data = await receiveParameters(task, length)
  const {io} = disk
  await io.exclusively(offset, length, async () => {
    if (task.aborted) throw new CheckCondition(CONDITION.ABORTED_COMMAND)
    await io.write(offset, data, {claimed: true, fua: (cdb[1]! & FUA) !== 0, atomic: length > ATOMIC_BYTES})
  })
  return length
}
