import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import type {InquiryData} from '../pages/inquiry-data.js'
import {answer} from './answer.js'

const EVPD = 0x01
const SUPPORTED_PAGES = 0x00

/** INQUIRY. */
export function inquiry({deviceType, standard, pages}: InquiryData, task: ScsiTask): number {
  const {cdb} = task
  const code = cdb[2]!
  const allocationLength = cdb.readUInt16BE(3)
  if ((cdb[1]! & EVPD) === 0) {
    if (code !== 0) throw invalidField(2)
    return answer(task, standard, allocationLength)
  }
  const content = code === SUPPORTED_PAGES ? Buffer.from([SUPPORTED_PAGES, ...pages.keys()]) : pages.get(code)?.()
  if (content === undefined) throw invalidField(2)
  const header = Buffer.from([deviceType, code, 0, 0])
  header.writeUInt16BE(content.length, 2)
  return answer(task, Buffer.concat([header, content]), allocationLength)
}
