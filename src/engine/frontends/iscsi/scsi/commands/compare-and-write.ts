import type {ScsiTask} from '../../scsi-task.js'
import {checkProtection, FUA, rangeOf, readAddress, type Layout} from '../cdb.js'
import {CheckCondition, invalidField} from '../check-condition.js'
import {checkDataLength, receiveParameters, receiveParts} from '../data/incoming.js'
import type {Disk} from '../disk.js'
import {LIMIT} from '../geometry.js'
import {CONDITION} from '../sense.js'
import {firstDifference, miscompare} from './verify.js'

const COMPARE_LAYOUT: Layout = {lba: cdb => readAddress(cdb, 2), blocks: cdb => cdb[13]!, blocksAt: 13}

/**
 * COMPARE AND WRITE: what cluster file systems build their locks on. The data is twice the range: what should be there, and
 * what is to be there. Nothing else gets at the range in between.
 */
export async function compareAndWrite(disk: Disk, task: ScsiTask): Promise<number> {
  const {cdb} = task
  checkProtection(cdb)
  const {offset, length} = rangeOf(cdb, COMPARE_LAYOUT, disk.blocks, LIMIT.COMPARE_AND_WRITE)
  // More blocks than the field can say arrive here as fewer, with the data of them all.
  if (task.expectedOut !== 2 * length) throw invalidField(COMPARE_LAYOUT.blocksAt)
  if (length === 0) return 0
  const data = await receiveParameters(task, 2 * length)
  const {io} = disk
  await io.exclusively(offset, length, async () => {
    if (task.aborted) throw new CheckCondition(CONDITION.ABORTED_COMMAND)
    const current = await io.read(offset, length, {claimed: true})
    const difference = firstDifference(current, 0, data, 0, length)
    if (difference !== -1) throw miscompare(difference)
    await io.write(offset, data.subarray(length), {claimed: true, fua: (cdb[1]! & FUA) !== 0})
  })
  return 2 * length
}

/** ORWRITE(16): sets bits. Each part of the data by itself is read, combined and written with nothing in between. */
export async function orWrite(disk: Disk, task: ScsiTask, layout: Layout): Promise<number> {
  const {cdb} = task
  checkProtection(cdb)
  const {offset, length} = rangeOf(cdb, layout, disk.blocks)
  const fua = (cdb[1]! & FUA) !== 0
  const {io} = disk
  checkDataLength(task, length)
  await receiveParts(task, length, async part => {
    const at = offset + part.offset
    await io.exclusively(at, part.length, async () => {
      const bytes = await io.read(at, part.length, {claimed: true})
      for (let index = 0; index < bytes.length; index++) bytes[index]! |= part.slab.buffer[part.start + index]!
      await io.write(at, bytes, {claimed: true, fua})
    })
  })
  return length
}

