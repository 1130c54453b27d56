import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import {answer} from './answer.js'

/** SELECT REPORT. */
const SELECT = {ORDINARY: 0x00, WELL_KNOWN: 0x01, ALL: 0x02} as const

/** The logical units of a target: the controller and the volume. There are no well-known ones. */
const UNITS = [0, 1]

/** REPORT LUNS. */
export function reportLuns(task: ScsiTask): number {
  const {cdb} = task
  const select = cdb[2]!
  const allocationLength = cdb.readUInt32BE(6)
  if (select !== SELECT.ORDINARY && select !== SELECT.WELL_KNOWN && select !== SELECT.ALL) throw invalidField(2)
  if (allocationLength < 16) throw invalidField(6)
  const units = select === SELECT.WELL_KNOWN ? [] : UNITS
  const data = Buffer.alloc(8 + 8 * units.length)
  data.writeUInt32BE(8 * units.length, 0)
  // Peripheral device addressing: bus 0 and the number.
  units.forEach((lun, index) => {
    data[8 + 8 * index + 1] = lun
  })
  return answer(task, data, allocationLength)
}
