// MODE SELECT. The parameter list is what MODE SENSE answers; its layout is in mode-sense.ts.
import type {ScsiTask} from '../../scsi-task.js'
import {CheckCondition, invalidField, invalidParameter} from '../check-condition.js'
import {readAddress} from '../cdb.js'
import {receiveParameters} from '../data/incoming.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES} from '../geometry.js'
import type {UnitNexus} from '../logical-unit.js'
import {CONDITION} from '../sense.js'

const PF = 0x10
const SP = 0x01
const SPF = 0x40
const LONGLBA = 0x01
const MOST_32 = 0xffff_ffff

/** Where the parts of a list are. */
interface Shape {
  readonly headerBytes: number
  readonly descriptorBytes: number
  readonly descriptorBytesAt: number
  readonly long: boolean
}

interface WantedPage {
  readonly code: number
  readonly bytes: Buffer
}

export async function modeSelect6(disk: Disk, task: ScsiTask, nexus: UnitNexus): Promise<number> {
  const shape = (list: Buffer): Shape => ({headerBytes: 4, descriptorBytes: list[3]!, descriptorBytesAt: 3, long: false})
  return modeSelect(disk, task, nexus, task.cdb[4]!, 4, shape)
}

export async function modeSelect10(disk: Disk, task: ScsiTask, nexus: UnitNexus): Promise<number> {
  const shape = (list: Buffer): Shape => ({
    headerBytes: 8,
    descriptorBytes: list.readUInt16BE(6),
    descriptorBytesAt: 6,
    long: (list[4]! & LONGLBA) !== 0,
  })
  return modeSelect(disk, task, nexus, task.cdb.readUInt16BE(7), 8, shape)
}

async function modeSelect(disk: Disk, task: ScsiTask, {nexus}: UnitNexus, length: number, headerBytes: number, shapeOf: (list: Buffer) => Shape): Promise<number> {
  const flags = task.cdb[1]!
  if ((flags & SP) !== 0) throw invalidField(1, 0)
  if (length === 0) return 0
  if ((flags & PF) === 0) throw invalidField(1, 4)
  const list = await receiveParameters(task, length)
  if (list.length < headerBytes) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const shape = shapeOf(list)
  checkDescriptor(disk, list, shape)
  // All is looked at before anything is changed.
  const pages = wantedPages(disk, list, shape.headerBytes + shape.descriptorBytes)
  const changed = pages.map(({code, bytes}) => disk.modes.write(code, bytes))
  if (changed.includes(true)) disk.tell(CONDITION.MODE_PARAMETERS_CHANGED, nexus)
  return length
}

/** Number and length of blocks can be repeated, not changed. */
function checkDescriptor({blocks}: Disk, list: Buffer, {headerBytes, descriptorBytes, descriptorBytesAt, long}: Shape): void {
  if (descriptorBytes === 0) return
  if (descriptorBytes !== (long ? 16 : 8)) throw invalidParameter(descriptorBytesAt)
  if (list.length < headerBytes + descriptorBytes) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const count = long ? readAddress(list, headerBytes) : list.readUInt32BE(headerBytes)
  const isSame = count === 0 || count === blocks || (!long && count === MOST_32)
  if (!isSame) throw invalidParameter(headerBytes)
  const lengthAt = headerBytes + (long ? 12 : 4)
  const blockBytes = long ? list.readUInt32BE(lengthAt) : list.readUInt32BE(lengthAt) & 0xffffff
  if (blockBytes !== BLOCK_BYTES) throw invalidParameter(lengthAt)
}

function wantedPages({modes}: Disk, list: Buffer, start: number): WantedPage[] {
  const pages: WantedPage[] = []
  let at = start
  while (at < list.length) {
    if (list.length - at < 2) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
    const code = list[at]! & 0x3f
    if ((list[at]! & SPF) !== 0) throw invalidParameter(at, 6)
    if (!modes.has(code)) throw invalidParameter(at, 5)
    const end = at + 2 + list[at + 1]!
    if (list[at + 1] !== modes.read(code, 0)[1]) throw invalidParameter(at + 1)
    if (end > list.length) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
    const bytes = list.subarray(at, end)
    const problem = modes.problem(code, bytes)
    if (problem !== undefined) throw invalidParameter(at + problem.byte, problem.bit)
    pages.push({code, bytes})
    at = end
  }
  return pages
}
