import {messageOf} from '../../../../lib/errors.js'
import type {Log} from '../../../../lib/log.js'
import {STATUS, type ScsiTask} from '../scsi-task.js'
import {Busy, CheckCondition, ReservationConflict} from './check-condition.js'
import {strayBit, TRAIT, type CommandSet} from './command-set.js'
import type {LogicalUnit, UnitNexus} from './logical-unit.js'
import {CONDITION, encodeSense, type Condition, type SenseDetail} from './sense.js'

/**
 * Takes a command from its CDB to its status, in the order that SAM-5 and SPC-4 ask for: what the initiator must be told
 * first, is there such a command, do reservations allow it, are its reserved bits zero, is the unit able to; and then itself.
 *
 * All commands are carried out at once, whatever their task attribute: the extended INQUIRY page says that only SIMPLE is
 * supported. HEAD OF QUEUE is then always fulfilled, as there is no queue; who depends on ORDERED must wait for replies.
 */
export class CommandRunner<U extends LogicalUnit> {
  constructor(
    readonly unit: U,
    readonly commands: CommandSet<U>,
    readonly log: Log,
    /** What an operation code that is not in the set is answered with. */
    readonly unknown: Condition = CONDITION.INVALID_OPERATION_CODE,
  ) {}

  start(task: ScsiTask): void {
    const {unit} = this
    const nexus = unit.nexuses.get(task.nexus.id)
    if (nexus === undefined) {
      task.finish(STATUS.BUSY)
      return
    }
    const {cdb} = task
    const command = this.commands.find(cdb)
    const always = command !== undefined && (command.traits & TRAIT.ALWAYS) !== 0
    if (!always && nexus.attentions.pending) {
      this.fail(task, nexus.attentions.take()!)
      return
    }
    if (command === undefined) {
      this.#failUnknown(task)
      return
    }
    if (task.attribute === 'aca') {
      this.fail(task, CONDITION.INVALID_MESSAGE)
      return
    }
    const {access} = command
    if (nexus.excluded !== 0 && ((typeof access === 'number' ? access : access(cdb)) & nexus.excluded) !== 0) {
      task.finish(STATUS.RESERVATION_CONFLICT)
      return
    }
    const stray = strayBit(cdb, command.allowed)
    if (stray !== -1) {
      this.fail(task, CONDITION.INVALID_FIELD_IN_CDB, {field: {in: 'cdb', byte: stray >> 3, bit: stray & 7}})
      return
    }
    if (!always) {
      const obstacle = unit.obstacle(command)
      if (obstacle !== undefined) {
        this.fail(task, obstacle.condition, obstacle.detail)
        return
      }
    }
    if (command.start !== undefined) command.start(unit, task, nexus)
    else this.#run(command.run!, task, nexus)
  }

  /** Ends a command with CHECK CONDITION. */
  fail(task: ScsiTask, condition: Condition, detail: SenseDetail = {}, transferLength = 0): void {
    task.finish(STATUS.CHECK_CONDITION, encodeSense(condition, detail, this.unit.descriptorSense), transferLength)
  }

  #run(run: (unit: U, task: ScsiTask, nexus: UnitNexus) => number | Promise<number>, task: ScsiTask, nexus: UnitNexus): void {
    let result
    try {
      result = run(this.unit, task, nexus)
    } catch (error) {
      this.#failFor(task, error)
      return
    }
    if (typeof result === 'number') {
      task.finish(STATUS.GOOD, undefined, result)
      return
    }
    void result.then(
      transferLength => task.finish(STATUS.GOOD, undefined, transferLength),
      (error: unknown) => this.#failFor(task, error),
    )
  }

  #failFor(task: ScsiTask, error: unknown): void {
    if (error instanceof CheckCondition) {
      this.fail(task, error.condition, error.detail)
    } else if (error instanceof ReservationConflict) {
      task.finish(STATUS.RESERVATION_CONFLICT)
    } else if (error instanceof Busy) {
      task.finish(STATUS.BUSY)
    } else {
      this.log.error({err: error, initiator: task.nexus.peer, opcode: task.cdb[0]}, `command failed: ${messageOf(error)}`)
      this.fail(task, CONDITION.INTERNAL_TARGET_FAILURE)
    }
  }

  #failUnknown(task: ScsiTask): void {
    if (this.commands.actions(task.cdb[0]!) === undefined) this.fail(task, this.unknown)
    else this.fail(task, CONDITION.INVALID_FIELD_IN_CDB, {field: {in: 'cdb', byte: 1, bit: 4}})
  }
}
