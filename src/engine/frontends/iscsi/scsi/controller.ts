import type {ScsiTask} from '../scsi-task.js'
import {ACCESS, CommandSet, TRAIT, type CommandRow} from './command-set.js'
import {inquiry} from './commands/inquiry.js'
import {reportLuns} from './commands/report-luns.js'
import {reportOpcodes} from './commands/report-opcodes.js'
import {reportTaskManagement} from './commands/report-target.js'
import {requestSense} from './commands/request-sense.js'
import type {Identity} from './identity.js'
import {LogicalUnit} from './logical-unit.js'
import {controllerInquiry, type InquiryData} from './pages/inquiry-data.js'

export const CONTROLLER_LUN = 0

/** LUN 0: where initiators ask what else there is. */
export class Controller extends LogicalUnit {
  override readonly lun = CONTROLLER_LUN
  override readonly inquiry: InquiryData

  constructor(identity: Identity) {
    super()
    this.inquiry = controllerInquiry(identity)
  }
}

const {NONE} = ACCESS
const {ALWAYS} = TRAIT

const ROWS: readonly CommandRow<Controller>[] = [
  {name: 'TEST UNIT READY', usage: '00 00 00 00 00 00', access: NONE, run: () => 0},
  {name: 'REQUEST SENSE', usage: '03 01 00 00 ff 00', access: NONE, traits: ALWAYS, run: requestSense},
  {name: 'INQUIRY', usage: '12 01 ff ff ff 00', access: NONE, traits: ALWAYS, run: (unit, task) => inquiry(unit.inquiry, task)},
  {name: 'REPORT LUNS', usage: 'a0 00 ff 000000 ffffffff 00 00', access: NONE, traits: ALWAYS, run: (_, task) => reportLuns(task)},
  {action: 0x0c, name: 'REPORT SUPPORTED OPERATION CODES', usage: 'a3 0c 87 ff ffff ffffffff 00 00', access: NONE, run: reportOwnOpcodes},
  {
    action: 0x0d, name: 'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS', usage: 'a3 0d 80 00 0000 ffffffff 00 00',
    access: NONE, run: (_, task) => reportTaskManagement(task),
  },
]

export const CONTROLLER_COMMANDS: CommandSet<Controller> = new CommandSet(ROWS)

function reportOwnOpcodes(_: Controller, task: ScsiTask): number {
  return reportOpcodes(CONTROLLER_COMMANDS, task)
}
