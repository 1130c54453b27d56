import type {ScsiTask} from '../../scsi-task.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES, BLOCKS_PER_PHYSICAL_EXPONENT} from '../geometry.js'
import {answer} from './answer.js'

const MOST_32 = 0xffff_ffff
const CAPACITY_10_BYTES = 8
const CAPACITY_16_BYTES = 32
const LBPME = 0x80
const LBPRZ = 0x40


/** READ CAPACITY(10). */
export function readCapacity10(disk: Disk, task: ScsiTask): number {
  const data = Buffer.alloc(CAPACITY_10_BYTES)
  // All ones send the initiator to READ CAPACITY(16).
  data.writeUInt32BE(Math.min(MOST_32, disk.lastBlock), 0)
  data.writeUInt32BE(BLOCK_BYTES, 4)
  return answer(task, data, data.length)
}

/** READ CAPACITY(16). */
export function readCapacity16(disk: Disk, task: ScsiTask): number {
  const data = Buffer.alloc(CAPACITY_16_BYTES)
  data.writeBigUInt64BE(BigInt(disk.lastBlock), 0)
  data.writeUInt32BE(BLOCK_BYTES, 8)
  data[13] = BLOCKS_PER_PHYSICAL_EXPONENT
  data[14] = LBPME | LBPRZ
  return answer(task, data, task.cdb.readUInt32BE(10))
}
