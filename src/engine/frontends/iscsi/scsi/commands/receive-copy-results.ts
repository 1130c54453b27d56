// RECEIVE COPY RESULTS (SPC-4, 6.20).
//   copy status: 0 length of the rest (4)  4 HDD|status  5 segments (2)  7 units of the count  8 count (4)
//   parameters:  0 length of the rest (4)  8 targets (2)  10 segments (2)  12 list bytes (4)  16 segment bytes (4)
//                34 concurrent copies (2)  36 the same (1)  37 granularity  43 number of descriptor types  44 those
import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import {COPY_LIMIT} from '../copy-limits.js'
import type {CopyResult} from '../copy-results.js'
import type {Disk} from '../disk.js'
import type {UnitNexus} from '../logical-unit.js'
import {answer} from './answer.js'

const HDD = 0x80
const STATUS: Record<CopyResult['status'], number> = {'in progress': 0, good: 1, failed: 2}
const COUNT_IN_BYTES = 0
const PARAMETERS_BYTES = 44

export function copyStatus(disk: Disk, task: ScsiTask, {nexus}: UnitNexus): number {
  const result = disk.copies.get(nexus, task.cdb[2]!)
  if (result === undefined) throw invalidField(2)
  const data = Buffer.alloc(12)
  data.writeUInt32BE(data.length - 4, 0)
  data[4] = HDD | STATUS[result.status]
  data.writeUInt16BE(result.segments, 5)
  data[7] = COUNT_IN_BYTES
  data.writeUInt32BE(result.bytes, 8)
  return answer(task, data, task.cdb.readUInt32BE(10))
}

export function copyParameters(task: ScsiTask): number {
  const data = Buffer.concat([Buffer.alloc(PARAMETERS_BYTES), Buffer.from(COPY_LIMIT.DESCRIPTORS)])
  data.writeUInt32BE(data.length - 4, 0)
  data[4] = 0x01 // SNLID: copies without list identifier are possible
  data.writeUInt16BE(COPY_LIMIT.TARGETS, 8)
  data.writeUInt16BE(COPY_LIMIT.SEGMENTS, 10)
  data.writeUInt32BE(COPY_LIMIT.LIST_BYTES, 12)
  data.writeUInt32BE(COPY_LIMIT.SEGMENT_BYTES, 16)
  data.writeUInt16BE(COPY_LIMIT.CONCURRENT, 34)
  data[36] = COPY_LIMIT.CONCURRENT
  data[37] = COPY_LIMIT.GRANULARITY_EXPONENT
  data[43] = COPY_LIMIT.DESCRIPTORS.length
  return answer(task, data, task.cdb.readUInt32BE(10))
}
