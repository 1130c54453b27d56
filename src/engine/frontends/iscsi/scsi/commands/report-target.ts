import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import {PORT_GROUP, RELATIVE_PORT} from '../pages/designators.js'
import {answer} from './answer.js'

/** ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, TARGET RESET. */
const TASK_MANAGEMENT = 0x80 | 0x40 | 0x10 | 0x08 | 0x02
const REPD = 0x80

const ACTIVE_OPTIMIZED = 0x00
const AO_SUP = 0x01
const EXTENDED_HEADER = 1

/** REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS. */
export function reportTaskManagement(task: ScsiTask): number {
  const extended = (task.cdb[2]! & REPD) !== 0
  const data = Buffer.alloc(extended ? 16 : 4)
  data[0] = TASK_MANAGEMENT
  if (extended) data[3] = data.length - 4
  return answer(task, data, task.cdb.readUInt32BE(6))
}

/** REPORT TARGET PORT GROUPS: one group with one port, always active. */
export function reportPortGroups(task: ScsiTask): number {
  const {cdb} = task
  const format = cdb[1]! >> 5
  if (format > EXTENDED_HEADER) throw invalidField(1, 7)
  // 0 state  1 supported states  2 group (2)  7 number of ports; 2 relative port (2)
  const group = Buffer.from([ACTIVE_OPTIMIZED, AO_SUP, 0, PORT_GROUP, 0, 0, 0, 1, 0, 0, 0, RELATIVE_PORT])
  const header = Buffer.alloc(format === EXTENDED_HEADER ? 8 : 4)
  if (format === EXTENDED_HEADER) header[4] = 0x10
  header.writeUInt32BE(header.length - 4 + group.length, 0)
  return answer(task, Buffer.concat([header, group]), cdb.readUInt32BE(6))
}
