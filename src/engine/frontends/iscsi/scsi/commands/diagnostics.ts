import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import {answer} from './answer.js'

const SELF_TEST_CODE = 0xe0
const PCV = 0x01
/** The list of diagnostic pages, which is the only one. */
const SUPPORTED_PAGES = 0x00

/** SEND DIAGNOSTIC: the default self-test, which an engine that answers has passed. */
export function sendDiagnostic({cdb}: ScsiTask): number {
  if ((cdb[1]! & SELF_TEST_CODE) !== 0) throw invalidField(1, 7)
  if (cdb.readUInt16BE(3) !== 0) throw invalidField(3)
  return 0
}

/** RECEIVE DIAGNOSTIC RESULTS. */
export function receiveDiagnostic(task: ScsiTask): number {
  const {cdb} = task
  if ((cdb[1]! & PCV) !== 0 && cdb[2] !== SUPPORTED_PAGES) throw invalidField(2)
  return answer(task, Buffer.from([SUPPORTED_PAGES, 0, 0, 1, SUPPORTED_PAGES]), cdb.readUInt16BE(3))
}

/** REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT are repeated in the answer. */
const LISTS_AND_FORMAT = 0x1f

/** READ DEFECT DATA(10): an empty list. */
export function readDefectData10(task: ScsiTask): number {
  const {cdb} = task
  return answer(task, Buffer.from([0, cdb[2]! & LISTS_AND_FORMAT, 0, 0]), cdb.readUInt16BE(7))
}

/** READ DEFECT DATA(12): an empty list. */
export function readDefectData12(task: ScsiTask): number {
  const {cdb} = task
  return answer(task, Buffer.from([0, cdb[1]! & LISTS_AND_FORMAT, 0, 0, 0, 0, 0, 0]), cdb.readUInt32BE(6))
}
