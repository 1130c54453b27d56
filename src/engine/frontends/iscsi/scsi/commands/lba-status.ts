import {messageOf} from '../../../../../lib/errors.js'
import type {ScsiTask} from '../../scsi-task.js'
import {readAddress} from '../cdb.js'
import {CheckCondition} from '../check-condition.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES} from '../geometry.js'
import {CONDITION} from '../sense.js'
import {answer} from './answer.js'

const STATUS = {MAPPED: 0, DEALLOCATED: 1} as const
const HEADER_BYTES = 8
const DESCRIPTOR_BYTES = 16
/** A device answers as much as it likes. This is how often it is asked again before the list ends where it ends. */
const MOST_QUESTIONS = 64
/** However much room there is for them. */
const MOST_DESCRIPTORS = 4096
const MOST_32 = 0xffff_ffff

/** A run of blocks that are all allocated or all not. */
interface Stretch {
  readonly firstBlock: number
  blocks: number
  readonly allocated: boolean
}

/** GET LBA STATUS: as many descriptors as fit, of LBA (8), number of blocks (4), status. */
export async function getLbaStatus(disk: Disk, task: ScsiTask): Promise<number> {
  const lba = readAddress(task.cdb, 2)
  const allocationLength = task.cdb.readUInt32BE(10)
  if (lba >= disk.blocks) throw new CheckCondition(CONDITION.LBA_OUT_OF_RANGE)
  const room = Math.floor((allocationLength - HEADER_BYTES) / DESCRIPTOR_BYTES)
  const stretches = await stretchesFrom(disk, lba, Math.min(MOST_DESCRIPTORS, Math.max(1, room)))
  const data = Buffer.alloc(HEADER_BYTES + DESCRIPTOR_BYTES * stretches.length)
  data.writeUInt32BE(data.length - 4, 0)
  stretches.forEach(({firstBlock, blocks, allocated}, index) => {
    const at = HEADER_BYTES + DESCRIPTOR_BYTES * index
    data.writeBigUInt64BE(BigInt(firstBlock), at)
    data.writeUInt32BE(Math.min(MOST_32, blocks), at + 8)
    data[at + 12] = allocated ? STATUS.MAPPED : STATUS.DEALLOCATED
  })
  return answer(task, data, allocationLength)
}

/** What is allocated from a block on: at least one stretch and at most `most`, without gaps. */
async function stretchesFrom(disk: Disk, firstBlock: number, most: number): Promise<Stretch[]> {
  const stretches: Stretch[] = []
  const {blocks: end} = disk
  let next = firstBlock
  for (let asked = 0; asked < MOST_QUESTIONS && next < end && stretches.length < most; asked++) {
    for (const {length, allocated} of await ask(disk, next, end)) {
      const blocks = length / BLOCK_BYTES
      const last = stretches.at(-1)
      if (last?.allocated === allocated && last.blocks + blocks <= MOST_32) last.blocks += blocks
      else stretches.push({firstBlock: next, blocks, allocated})
      next += blocks
    }
  }
  return stretches.slice(0, most)
}

async function ask({device, log}: Disk, firstBlock: number, end: number): Promise<readonly {readonly length: number; readonly allocated: boolean}[]> {
  try {
    return await device.blockStatus(firstBlock * BLOCK_BYTES, (end - firstBlock) * BLOCK_BYTES)
  } catch (error) {
    log.warn({err: error}, `cannot tell what is allocated: ${messageOf(error)}`)
    throw new CheckCondition(CONDITION.UNRECOVERED_READ_ERROR)
  }
}
