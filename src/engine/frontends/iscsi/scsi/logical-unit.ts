import type {Nexus} from '../scsi-task.js'
import {Attentions} from './attentions.js'
import type {Command} from './command-set.js'
import type {InquiryData} from './pages/inquiry-data.js'
import {CONDITION, type Condition, type SenseDetail} from './sense.js'

/** One initiator port and one logical unit: what the standards call an I_T_L nexus. */
export class UnitNexus {
  readonly attentions = new Attentions()
  /** What reservations of others keep this initiator from: bits of ACCESS. */
  excluded = 0
  /** Name and ISID: the same for an initiator that comes back. */
  readonly port: string

  constructor(readonly nexus: Nexus) {
    this.port = portOf(nexus)
  }
}

/** The initiator port's name, in the format of RFC 7143: `iqn.…,i,0x00023d000001`. */
export function portOf({initiatorName, isid}: Nexus): string {
  return `${initiatorName},i,0x${isid.toString('hex')}`
}

/** Why a unit does not carry out a command now. */
export interface Obstacle {
  readonly condition: Condition
  readonly detail: SenseDetail
}

/** What all logical units have: initiators, and what these must be told. */
export abstract class LogicalUnit {
  readonly nexuses = new Map<number, UnitNexus>()
  abstract readonly lun: number
  abstract readonly inquiry: InquiryData

  /** Whether sense data is in descriptor format. */
  get descriptorSense(): boolean {
    return false
  }

  /** Asked before each command but those that are always allowed. */
  obstacle(_command: Command<never>): Obstacle | undefined {
    return undefined
  }

  /** For REQUEST SENSE, when nothing is waiting to be told. */
  state(): Obstacle {
    return {condition: CONDITION.NO_SENSE, detail: {}}
  }

  addNexus(nexus: Nexus): UnitNexus {
    const added = new UnitNexus(nexus)
    added.attentions.establish(CONDITION.RESET_OCCURRED)
    this.nexuses.set(nexus.id, added)
    return added
  }

  removeNexus(nexus: Nexus): void {
    this.nexuses.delete(nexus.id)
  }

  /** Every initiator but `except` is to be told. */
  tell(condition: Condition, except?: Nexus): void {
    for (const {nexus, attentions} of this.nexuses.values()) {
      if (nexus.id !== except?.id) attentions.establish(condition)
    }
  }

  reset(): void {
    this.tell(CONDITION.UNIT_RESET_OCCURRED)
  }
}
