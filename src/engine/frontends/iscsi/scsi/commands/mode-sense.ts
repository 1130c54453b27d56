// MODE SENSE. Answers are a header, block descriptors and mode pages (SPC-4, 7.5):
//   header(6):  0 length of the rest  2 device specific  3 length of block descriptors
//   header(10): 0 length of the rest (2)  3 device specific  4 LONGLBA  6 length of block descriptors (2)
//   descriptor: 0 blocks (4)  5 block length (3)    long: 0 blocks (8)  12 block length (4)
import type {ScsiTask} from '../../scsi-task.js'
import {CheckCondition, invalidField} from '../check-condition.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES} from '../geometry.js'
import {PAGE_CONTROL} from '../pages/mode-pages.js'
import {CONDITION} from '../sense.js'
import {answer} from './answer.js'

const DBD = 0x08
const LLBAA = 0x10
const ALL_PAGES = 0x3f
const ALL_SUBPAGES = 0xff
const WRITE_PROTECTED = 0x80
const DPOFUA = 0x10
const LONGLBA = 0x01
const MOST_32 = 0xffff_ffff

export function modeSense6(disk: Disk, task: ScsiTask): number {
  const descriptor = (task.cdb[1]! & DBD) !== 0 ? Buffer.alloc(0) : shortDescriptor(disk)
  const header = Buffer.from([0, 0, deviceSpecific(disk), descriptor.length])
  const data = Buffer.concat([header, descriptor, pagesOf(disk, task.cdb)])
  data[0] = data.length - 1
  return answer(task, data, task.cdb[4]!)
}

export function modeSense10(disk: Disk, task: ScsiTask): number {
  const flags = task.cdb[1]!
  const long = (flags & LLBAA) !== 0
  const descriptor = (flags & DBD) !== 0 ? Buffer.alloc(0) : long ? longDescriptor(disk) : shortDescriptor(disk)
  const header = Buffer.alloc(8)
  header[3] = deviceSpecific(disk)
  header[4] = long && descriptor.length > 0 ? LONGLBA : 0
  header.writeUInt16BE(descriptor.length, 6)
  const data = Buffer.concat([header, descriptor, pagesOf(disk, task.cdb)])
  data.writeUInt16BE(data.length - 2, 0)
  return answer(task, data, task.cdb.readUInt16BE(7))
}

function pagesOf({modes}: Disk, cdb: Buffer): Buffer {
  const control = cdb[2]! >> 6
  const code = cdb[2]! & 0x3f
  const subpage = cdb[3]!
  if (control === PAGE_CONTROL.SAVED) throw new CheckCondition(CONDITION.SAVING_NOT_SUPPORTED)
  if (subpage !== 0 && subpage !== ALL_SUBPAGES) throw invalidField(3)
  if (code === ALL_PAGES) return Buffer.concat([...modes.codes].map(each => modes.read(each, control)))
  if (!modes.has(code)) throw invalidField(2, 5)
  return modes.read(code, control)
}

function deviceSpecific({modes}: Disk): number {
  return DPOFUA | (modes.writeProtected ? WRITE_PROTECTED : 0)
}

function shortDescriptor({blocks}: Disk): Buffer {
  const descriptor = Buffer.alloc(8)
  descriptor.writeUInt32BE(Math.min(MOST_32, blocks), 0)
  descriptor.writeUInt16BE(BLOCK_BYTES, 6)
  return descriptor
}

function longDescriptor({blocks}: Disk): Buffer {
  const descriptor = Buffer.alloc(16)
  descriptor.writeBigUInt64BE(BigInt(blocks), 0)
  descriptor.writeUInt32BE(BLOCK_BYTES, 12)
  return descriptor
}
