import type {ScsiTask} from '../../scsi-task.js'
import {Busy, CheckCondition} from '../check-condition.js'
import type {CopyResult} from '../copy-results.js'
import {COPY_LIMIT} from '../copy-limits.js'
import type {BlockIo} from '../data/block-io.js'
import {receiveParameters} from '../data/incoming.js'
import type {Disk} from '../disk.js'
import {BLOCK_BYTES} from '../geometry.js'
import type {UnitNexus} from '../logical-unit.js'
import {unitDesignators} from '../pages/designators.js'
import {CONDITION} from '../sense.js'
import {parseCopy, type CopyRequest, type CopySegment} from './copy-parameters.js'

/** What is copied at a time: read whole before it is written, so that ranges that overlap by more are copied like memmove() would, forwards. */
const STEP_BYTES = 1024 * 1024
const ZEROS = Buffer.alloc(STEP_BYTES)

/**
 * EXTENDED COPY(LID1): copies within the volume, so that the data does not travel. As with any READ and WRITE, what others
 * write meanwhile may or may not be copied. Segments that come first are done first.
 */
export async function extendedCopy(disk: Disk, task: ScsiTask, nexus: UnitNexus): Promise<number> {
  const length = task.cdb.readUInt32BE(10)
  if (length === 0) return 0
  const request = parseCopy(await receiveParameters(task, length), unitDesignators(disk.identity))
  const {listId} = request
  if (listId !== undefined && disk.copies.get(nexus.nexus, listId)?.status === 'in progress') {
    throw new CheckCondition(CONDITION.OPERATION_IN_PROGRESS)
  }
  if (disk.copies.running === COPY_LIMIT.CONCURRENT) throw new Busy()
  const note = (result: CopyResult): void => {
    if (listId !== undefined && disk.nexuses.has(nexus.nexus.id)) disk.copies.set(nexus.nexus, listId, result)
  }
  disk.copies.running++
  try {
    await copyAll(disk, task, request, note)
  } finally {
    disk.copies.running--
  }
  return length
}

async function copyAll(disk: Disk, task: ScsiTask, {segments, targets}: CopyRequest, note: (result: CopyResult) => void): Promise<void> {
  const io = disk.ioFor(task)
  let bytes = 0
  let done = 0
  note({status: 'in progress', segments: 0, bytes: 0})
  try {
    for (const segment of segments) {
      checkSegment(disk, segment, targets)
      await copySegment(io, segment)
      if (task.aborted) throw new CheckCondition(CONDITION.ABORTED_COMMAND)
      done++
      bytes += segment.blocks * BLOCK_BYTES
      note({status: 'in progress', segments: done, bytes})
    }
    note({status: 'good', segments: done, bytes})
  } catch (error) {
    note({status: 'failed', segments: done, bytes})
    throw error
  }
}

function checkSegment({blocks: size}: Disk, {source, destination, blocks, sourceLba, destinationLba}: CopySegment, targets: readonly boolean[]): void {
  for (const index of [source, destination]) {
    if (index >= targets.length) throw new CheckCondition(CONDITION.UNREACHABLE_COPY_TARGET)
    if (!targets[index]!) throw new CheckCondition(CONDITION.COPY_TARGET_NOT_REACHABLE)
  }
  if (sourceLba + blocks > size || destinationLba + blocks > size) throw new CheckCondition(CONDITION.COPY_ABORTED)
}

async function copySegment(io: BlockIo, {blocks, sourceLba, destinationLba}: CopySegment): Promise<void> {
  const length = blocks * BLOCK_BYTES
  try {
    for (let done = 0; done < length && !io.cancelled(); done += STEP_BYTES) {
      const data = await io.read(sourceLba * BLOCK_BYTES + done, Math.min(STEP_BYTES, length - done))
      const destination = destinationLba * BLOCK_BYTES + done
      // What takes no space here need not take any there.
      if (data.equals(ZEROS.subarray(0, data.length))) await io.zero(destination, data.length, {unmap: true})
      else await io.write(destination, data)
    }
  } catch (error) {
    // A full volume is worth its own name; for all else the standard has one.
    if (error instanceof CheckCondition && error.condition === CONDITION.SPACE_ALLOCATION_FAILED) throw error
    if (error instanceof CheckCondition) throw new CheckCondition(CONDITION.COPY_DEVICE_FAILURE)
    throw error
  }
}
