import type {Log} from '../../../../lib/log.js'
import type {BlockDevice} from '../../../../protocol/block-device.js'
import type {Nexus, ScsiTask} from '../scsi-task.js'
import {TRAIT, type Command} from './command-set.js'
import {CopyResults} from './copy-results.js'
import {BlockIo} from './data/block-io.js'
import {DataPath} from './data/data-path.js'
import {blockCount} from './geometry.js'
import type {Identity} from './identity.js'
import {LogicalUnit, type Obstacle, type UnitNexus} from './logical-unit.js'
import {diskInquiryData} from './pages/disk-pages.js'
import type {InquiryData} from './pages/inquiry-data.js'
import {ModePages} from './pages/mode-pages.js'
import {Reservations} from './reservations/reservations.js'
import type {StateKeeper} from './reservations/state-keeper.js'
import {Sanitizer} from './sanitizer.js'
import {CONDITION, type Condition, type SenseDetail} from './sense.js'

export const DISK_LUN = 1

export interface DiskOptions {
  readonly identity: Identity
  readonly device: BlockDevice
  readonly keeper: StateKeeper
  readonly log: Log
  /** Ends a command with CHECK CONDITION. */
  readonly fail: (task: ScsiTask, condition: Condition, detail?: SenseDetail, transferLength?: number) => void
  /** Takes back all commands of a session but one. */
  readonly abortCommands: (nexus: Nexus, except: ScsiTask) => Promise<void>
}

const PROTECTED: Obstacle = {condition: CONDITION.SOFTWARE_WRITE_PROTECTED, detail: {}}

/** LUN 1: the volume. */
export class Disk extends LogicalUnit {
  override readonly lun = DISK_LUN
  override readonly inquiry: InquiryData
  readonly identity: Identity
  readonly device: BlockDevice
  readonly keeper: StateKeeper
  readonly data: DataPath
  readonly io: BlockIo
  readonly modes = new ModePages()
  readonly reservations: Reservations
  readonly sanitizer: Sanitizer
  readonly copies = new CopyResults()
  readonly log: Log
  readonly abortCommands: DiskOptions['abortCommands']
  #knownBytes: number

  constructor({identity, device, keeper, log, fail, abortCommands}: DiskOptions) {
    super()
    this.inquiry = diskInquiryData(identity)
    this.identity = identity
    this.device = device
    this.keeper = keeper
    this.data = new DataPath(device, fail)
    this.io = new BlockIo(device, this.data.gate)
    this.reservations = new Reservations(this, keeper)
    this.sanitizer = new Sanitizer(device, this.io, keeper, log)
    this.log = log
    this.abortCommands = abortCommands
    this.#knownBytes = device.sizeBytes
  }

  get blocks(): number {
    return blockCount(this.device)
  }

  /** The highest address. */
  get lastBlock(): number {
    return Math.max(0, this.blocks - 1)
  }

  override get descriptorSense(): boolean {
    return this.modes.descriptorSense
  }

  /** Requests to the device for one command, which stop when it is taken back. */
  ioFor(task: ScsiTask): BlockIo {
    return this.io.until(() => task.aborted)
  }

  override obstacle(command: Command<never>): Obstacle | undefined {
    const obstacle = this.sanitizer.obstacle(command)
    if (obstacle !== undefined) return obstacle
    return this.modes.writeProtected && (command.traits & TRAIT.CHANGES_DATA) !== 0 ? PROTECTED : undefined
  }

  override state(): Obstacle {
    return this.sanitizer.state()
  }

  /** Called before each command: a volume that has grown is something to be told. */
  noticeSize(): void {
    const {sizeBytes} = this.device
    if (sizeBytes === this.#knownBytes) return
    this.#knownBytes = sizeBytes
    this.tell(CONDITION.CAPACITY_CHANGED)
  }

  override addNexus(nexus: Nexus): UnitNexus {
    const added = super.addNexus(nexus)
    this.reservations.refresh()
    return added
  }

  override removeNexus(nexus: Nexus): void {
    super.removeNexus(nexus)
    this.reservations.nexusLost(nexus)
    this.copies.nexusLost(nexus)
  }

  override reset(): void {
    super.reset()
    this.modes.reset()
    this.reservations.reset()
  }
}
