// PERSISTENT RESERVE OUT. CDB: 1 service action  2 scope|type  5 parameter list length (4). Parameter list:
//   0 reservation key (8)  8 service action reservation key (8)  20 SPEC_I_PT|ALL_TG_PT|APTPL
import type {ScsiTask} from '../../scsi-task.js'
import {CheckCondition, invalidParameter} from '../check-condition.js'
import {receiveParameters} from '../data/incoming.js'
import type {Disk} from '../disk.js'
import type {UnitNexus} from '../logical-unit.js'
import {ACTION} from '../reservations/reservation-plan.js'
import {CONDITION} from '../sense.js'

const LIST_BYTES = 24
const FLAGS_AT = 20
const APTPL = 0x01
/** Registering for other initiators or other target ports; there is one target port. */
const FOR_OTHERS = 0x08 | 0x04

export async function persistentReserveOut(disk: Disk, task: ScsiTask, {port}: UnitNexus): Promise<number> {
  const {cdb} = task
  const action = cdb[1]! & 0x1f
  const scope = cdb[2]! >> 4
  const type = cdb[2]! & 0x0f
  if (cdb.readUInt32BE(5) !== LIST_BYTES) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const list = await receiveParameters(task, LIST_BYTES)
  const registers = action === ACTION.REGISTER || action === ACTION.REGISTER_AND_IGNORE
  const flags = registers ? list[FLAGS_AT]! : 0
  if ((flags & FOR_OTHERS) !== 0) throw invalidParameter(FLAGS_AT, 31 - Math.clz32(flags & FOR_OTHERS))
  const keep = (flags & APTPL) !== 0
  if (keep && !disk.keeper.able) throw invalidParameter(FLAGS_AT, 0)
  const victims = await disk.reservations.carryOut({
    action,
    port,
    key: list.toString('hex', 0, 8),
    serviceKey: list.toString('hex', 8, 16),
    scope,
    type,
    keep,
  })
  // All that was there before is over when this command is.
  await Promise.all(victims.map(victim => disk.abortCommands(victim, task)))
  return LIST_BYTES
}
