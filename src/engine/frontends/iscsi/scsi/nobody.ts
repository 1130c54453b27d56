import type {Nexus, ScsiTask} from '../scsi-task.js'
import {ACCESS, CommandSet, TRAIT, type CommandRow} from './command-set.js'
import {answer} from './commands/answer.js'
import {inquiry} from './commands/inquiry.js'
import {LogicalUnit, UnitNexus} from './logical-unit.js'
import {nobodyInquiry, type InquiryData} from './pages/inquiry-data.js'
import {CONDITION, encodeSense} from './sense.js'

/** Any other LUN: INQUIRY says that there is nothing, REQUEST SENSE that this is wrong; the rest fails with that. */
export class Nobody extends LogicalUnit {
  override readonly lun: number = -1
  override readonly inquiry: InquiryData = nobodyInquiry()

  /** Nothing has happened to it that anybody should know. */
  override addNexus(nexus: Nexus): UnitNexus {
    const added = new UnitNexus(nexus)
    this.nexuses.set(nexus.id, added)
    return added
  }

  override tell(): void {}
}

const {NONE} = ACCESS
const {ALWAYS} = TRAIT

const ROWS: readonly CommandRow<Nobody>[] = [
  {name: 'REQUEST SENSE', usage: '03 01 00 00 ff 00', access: NONE, traits: ALWAYS, run: (_, task) => wrongUnit(task)},
  {name: 'INQUIRY', usage: '12 01 ff ff ff 00', access: NONE, traits: ALWAYS, run: (unit, task) => inquiry(unit.inquiry, task)},
]

export const NOBODY_COMMANDS: CommandSet<Nobody> = new CommandSet(ROWS)

function wrongUnit(task: ScsiTask): number {
  const descriptors = (task.cdb[1]! & 1) !== 0
  return answer(task, encodeSense(CONDITION.UNIT_NOT_SUPPORTED, {}, descriptors), task.cdb[4]!)
}
