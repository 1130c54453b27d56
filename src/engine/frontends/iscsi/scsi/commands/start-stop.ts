import {ACCESS} from '../command-set.js'
import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import type {Disk} from '../disk.js'

const POWER_CONDITION = 0xf0
const NO_FLUSH = 0x04
const LOEJ = 0x02
const START = 0x01
const PREVENT_MEDIUM = 0x01

/** START STOP UNIT. There is nothing that turns or could be taken out: stopping is a flush, and the volume stays ready. */
export async function startStopUnit(disk: Disk, task: ScsiTask): Promise<number> {
  const flags = task.cdb[4]!
  if ((flags & POWER_CONDITION) !== 0) throw invalidField(4, 7)
  if ((flags & LOEJ) !== 0) throw invalidField(4, 1)
  if ((flags & (START | NO_FLUSH)) === 0) await disk.io.flush()
  return 0
}

/** Anybody may start it; the rest is for whom writing is. */
export function startStopAccess(cdb: Buffer): number {
  return (cdb[4]! & (POWER_CONDITION | START)) === START ? ACCESS.UNRESERVED : ACCESS.UNRESERVED | ACCESS.WRITE
}

/** PREVENT ALLOW MEDIUM REMOVAL: it is always prevented. */
export function preventRemoval(): number {
  return 0
}

export function preventAccess(cdb: Buffer): number {
  return (cdb[4]! & PREVENT_MEDIUM) === 0 ? ACCESS.NONE : ACCESS.UNRESERVED | ACCESS.WRITE
}
