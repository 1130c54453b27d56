import type {ScsiTask} from '../scsi-task.js'
import type {LogicalUnit, UnitNexus} from './logical-unit.js'

/** What a command does, as far as other initiators' reservations are concerned. */
export const ACCESS = {
  NONE: 0,
  /** Not while somebody holds the unit with RESERVE; for nearly everything. */
  UNRESERVED: 1,
  READ: 2,
  WRITE: 4,
} as const

export const TRAIT = {
  /** Carried out whatever there is to tell and whatever the unit is doing. */
  ALWAYS: 1,
  /** Changes data: not on a write-protected unit. */
  CHANGES_DATA: 2,
  /** Allowed after a SANITIZE that failed. */
  AFTER_FAILED_SANITIZE: 4,
} as const

/** One line of a table of commands. */
export interface CommandRow<U extends LogicalUnit> {
  readonly name: string
  /** For operation codes that have them: in the low five bits of byte 1. */
  readonly action?: number
  /** The CDB, in hex: its operation code (and service action), and a 1 for each bit that means something here. */
  readonly usage: string
  /** Bits that are obsolete, or hints that are not followed: ignored when set. Any other bit is refused. */
  readonly ignored?: string
  /** Bits of ACCESS, which may depend on the CDB. */
  readonly access: number | ((cdb: Buffer) => number)
  /** Bits of TRAIT. */
  readonly traits?: number
  /** How long an initiator should wait before it worries. */
  readonly timeoutSeconds?: number
  /** Carries the command out up to finish(). */
  readonly start?: (unit: U, task: ScsiTask, nexus: UnitNexus) => void
  /** The other way: the runner finishes the command, with the returned number of bytes transferred, or for what was thrown. */
  readonly run?: (unit: U, task: ScsiTask, nexus: UnitNexus) => number | Promise<number>
}

/** A line, prepared for use. */
export interface Command<U extends LogicalUnit> extends CommandRow<U> {
  readonly opcode: number
  readonly usageBytes: Buffer
  /** Bits that may be set. */
  readonly allowed: Buffer
  readonly traits: number
}

type Actions<U extends LogicalUnit> = ReadonlyMap<number, Command<U>>

/** The commands of one kind of logical unit. */
export class CommandSet<U extends LogicalUnit> {
  /** In the order of operation codes and service actions. */
  readonly all: readonly Command<U>[]
  readonly #plain: (Command<U> | undefined)[] = new Array<Command<U> | undefined>(256).fill(undefined)
  readonly #withActions = new Map<number, Actions<U>>()

  constructor(rows: readonly CommandRow<U>[]) {
    this.all = rows.map(prepare).sort((a, b) => a.opcode - b.opcode || (a.action ?? 0) - (b.action ?? 0))
    for (const command of this.all) {
      if (command.action === undefined) this.#plain[command.opcode] = command
      else this.#withActions.set(command.opcode, new Map([...this.actions(command.opcode) ?? [], [command.action, command]]))
    }
  }

  find(cdb: Buffer): Command<U> | undefined {
    return this.#plain[cdb[0]!] ?? this.#withActions.get(cdb[0]!)?.get(cdb[1]! & 0x1f)
  }

  /** The command without service actions that has this operation code. */
  plain(opcode: number): Command<U> | undefined {
    return this.#plain[opcode]
  }

  /** The service actions of an operation code that has them. */
  actions(opcode: number): Actions<U> | undefined {
    return this.#withActions.get(opcode)
  }
}

/** The highest bit that is set in a CDB and must not be, as 8 times the byte plus the bit; -1 when there is none. */
export function strayBit(cdb: Buffer, allowed: Buffer): number {
  for (let index = 1; index < allowed.length; index++) {
    const stray = cdb[index]! & ~allowed[index]!
    if (stray !== 0) return index * 8 + 31 - Math.clz32(stray)
  }
  return -1
}

function prepare<U extends LogicalUnit>(row: CommandRow<U>): Command<U> {
  const usageBytes = bytes(row.usage)
  const ignored = bytes(row.ignored ?? '')
  const allowed = Buffer.from(usageBytes.map((byte, index) => byte | (ignored[index] ?? 0)))
  // The service action itself has been looked at already.
  if (row.action !== undefined) allowed[1] = allowed[1]! | 0x1f
  return {...row, opcode: usageBytes[0]!, usageBytes, allowed, traits: row.traits ?? 0}
}

function bytes(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(' ', ''), 'hex')
}
