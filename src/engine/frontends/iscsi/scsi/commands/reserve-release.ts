import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import type {Disk} from '../disk.js'
import type {UnitNexus} from '../logical-unit.js'

/** 3RDPTY and LONGID of the commands with 10 bytes: reserving for somebody else is long obsolete. */
const THIRD_PARTY = 0x12

/** RESERVE(6) and (10). */
export function reserve(disk: Disk, task: ScsiTask, nexus: UnitNexus): number {
  checkThirdParty(task)
  disk.reservations.reserve(nexus)
  return 0
}

/** RELEASE(6) and (10). */
export function release(disk: Disk, task: ScsiTask, nexus: UnitNexus): number {
  checkThirdParty(task)
  disk.reservations.release(nexus)
  return 0
}

function checkThirdParty({cdb}: ScsiTask): void {
  if ((cdb[1]! & THIRD_PARTY) !== 0) throw invalidField(1, 4)
}
