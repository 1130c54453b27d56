import type {ScsiTask} from '../../scsi-task.js'
import type {LogicalUnit, UnitNexus} from '../logical-unit.js'
import {encodeSense} from '../sense.js'
import {answer} from './answer.js'

const DESC = 0x01

/** REQUEST SENSE: the next thing the initiator has to be told, which is thereby told, or else what the unit is doing. */
export function requestSense(unit: LogicalUnit, task: ScsiTask, nexus: UnitNexus): number {
  const attention = nexus.attentions.take()
  const {condition, detail} = attention === undefined ? unit.state() : {condition: attention, detail: {}}
  return answer(task, encodeSense(condition, detail, (task.cdb[1]! & DESC) !== 0), task.cdb[4]!)
}
