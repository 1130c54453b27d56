// REPORT SUPPORTED OPERATION CODES (SPC-4, 6.35), from the table that also carries the commands out.
//   all:  0 length (4)  descriptors: 0 opcode  2 service action (2)  5 CTDP|SERVACTV  6 CDB length (2) [timeouts]
//   one:  1 CTDP|SUPPORT  2 CDB length (2)  4 usage data [timeouts]
//   timeouts: 0 length (2)  4 nominal seconds (4)  8 recommended seconds (4)
import type {ScsiTask} from '../../scsi-task.js'
import {invalidField} from '../check-condition.js'
import type {Command, CommandSet} from '../command-set.js'
import type {LogicalUnit} from '../logical-unit.js'
import {answer} from './answer.js'

const RCTD = 0x80
const REPORT = {ALL: 0, OPCODE: 1, OPCODE_AND_ACTION: 2, OPCODE_AND_ACTION_IF_ANY: 3} as const
const SUPPORT = {NO: 1, YES: 3} as const
const DEFAULT_TIMEOUT_SECONDS = 60
const CTDP_ALL = 0x02
const SERVACTV = 0x01
const CTDP_ONE = 0x80

export function reportOpcodes<U extends LogicalUnit>(commands: CommandSet<U>, task: ScsiTask): number {
  const {cdb} = task
  const timeouts = (cdb[2]! & RCTD) !== 0
  const allocationLength = cdb.readUInt32BE(6)
  if ((cdb[2]! & 0x07) === REPORT.ALL) return answer(task, describeAll(commands.all, timeouts), allocationLength)
  return answer(task, describeOne(chosen(commands, cdb), timeouts), allocationLength)
}

/** The command asked for; undefined when there is none. Throws for a question that does not go with the operation code. */
function chosen<U extends LogicalUnit>(commands: CommandSet<U>, cdb: Buffer): Command<U> | undefined {
  const opcode = cdb[3]!
  const action = cdb.readUInt16BE(4)
  const actions = commands.actions(opcode)
  switch (cdb[2]! & 0x07) {
    case REPORT.OPCODE:
      if (actions !== undefined) throw invalidField(2, 2)
      return commands.plain(opcode)
    case REPORT.OPCODE_AND_ACTION:
      if (commands.plain(opcode) !== undefined) throw invalidField(2, 2)
      return actions?.get(action)
    case REPORT.OPCODE_AND_ACTION_IF_ANY:
      return actions === undefined && action === 0 ? commands.plain(opcode) : actions?.get(action)
    default:
      throw invalidField(2, 2)
  }
}

function describeAll(all: readonly Command<never>[], timeouts: boolean): Buffer {
  const descriptors = all.map(command => {
    const descriptor = Buffer.alloc(8)
    descriptor[0] = command.opcode
    descriptor.writeUInt16BE(command.action ?? 0, 2)
    descriptor[5] = (timeouts ? CTDP_ALL : 0) | (command.action === undefined ? 0 : SERVACTV)
    descriptor.writeUInt16BE(command.usageBytes.length, 6)
    return timeouts ? Buffer.concat([descriptor, timeoutsOf(command)]) : descriptor
  })
  const list = Buffer.concat([Buffer.alloc(4), ...descriptors])
  list.writeUInt32BE(list.length - 4, 0)
  return list
}

function describeOne(command: Command<never> | undefined, timeouts: boolean): Buffer {
  if (command === undefined) return Buffer.from([0, SUPPORT.NO, 0, 0])
  const header = Buffer.from([0, SUPPORT.YES | (timeouts ? CTDP_ONE : 0), 0, command.usageBytes.length])
  return Buffer.concat([header, command.usageBytes, ...(timeouts ? [timeoutsOf(command)] : [])])
}

function timeoutsOf({timeoutSeconds = DEFAULT_TIMEOUT_SECONDS}: Command<never>): Buffer {
  const descriptor = Buffer.alloc(12)
  descriptor.writeUInt16BE(10, 0)
  descriptor.writeUInt32BE(timeoutSeconds, 8)
  return descriptor
}
