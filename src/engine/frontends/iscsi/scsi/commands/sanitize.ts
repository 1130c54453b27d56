import {setTimeout as sleep} from 'node:timers/promises'
import type {ScsiTask} from '../../scsi-task.js'
import {CheckCondition, invalidField} from '../check-condition.js'
import type {Disk} from '../disk.js'
import {CONDITION} from '../sense.js'

const IMMED = 0x80
const AUSE = 0x20
/** How soon a command that is taken back ends, while the erasing goes on: a reset waits for it. */
const LOOK_MS = 50

/** SANITIZE, BLOCK ERASE. With IMMED it goes on by itself, and REQUEST SENSE tells how far it is. */
export async function blockErase(disk: Disk, task: ScsiTask): Promise<number> {
  const {cdb} = task
  if (cdb.readUInt16BE(7) !== 0) throw invalidField(7)
  const immediate = (cdb[1]! & IMMED) !== 0
  const {ended} = await disk.sanitizer.start((cdb[1]! & AUSE) !== 0)
  if (immediate) {
    // Its failure is logged, and seen in the answer to every later command.
    ended.catch(() => undefined)
    return 0
  }
  let failure: unknown
  let over = false
  const settled = ended.then(
    () => (over = true),
    (error: unknown) => {
      failure = error
      over = true
    },
  )
  while (!over && !task.aborted) await Promise.race([settled, sleep(LOOK_MS)])
  if (failure !== undefined) throw new CheckCondition(CONDITION.SANITIZE_FAILED, failure instanceof CheckCondition ? failure.detail : {})
  return 0
}

/** SANITIZE, EXIT FAILURE MODE. */
export async function exitFailureMode(disk: Disk, task: ScsiTask): Promise<number> {
  if (task.cdb.readUInt16BE(7) !== 0) throw invalidField(7)
  if (!(await disk.sanitizer.leave())) throw invalidField(1, 4)
  return 0
}
