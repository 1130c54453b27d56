import type {ScsiTask} from '../../scsi-task.js'

/** Sends what fits into the allocation length. Returns the bytes transferred. */
export function answer(task: ScsiTask, data: Buffer, allocationLength: number): number {
  const length = Math.min(data.length, allocationLength)
  if (length > 0) task.sendParameters(data.subarray(0, length))
  return length
}
