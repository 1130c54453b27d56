import type {Log} from '../../../../lib/log.js'
import type {BlockDevice} from '../../../../protocol/block-device.js'
import type {DeviceServer, Nexus, ScsiTask} from '../scsi-task.js'
import {CommandRunner} from './command-runner.js'
import {Controller, CONTROLLER_COMMANDS, CONTROLLER_LUN} from './controller.js'
import {DISK_COMMANDS} from './disk-commands.js'
import {Disk, DISK_LUN} from './disk.js'
import {identityOf} from './identity.js'
import type {LogicalUnit} from './logical-unit.js'
import {Nobody, NOBODY_COMMANDS} from './nobody.js'
import type {ReservationStore} from './reservations/saved-state.js'
import {StateKeeper} from './reservations/state-keeper.js'
import {CONDITION} from './sense.js'

export interface ScsiOptions {
  /** The volume's name: serial number and designators follow from it. */
  readonly volume: string
  /** The iSCSI target's name, `iqn.2019-10.io.longhorn:VOL`. */
  readonly target: string
  readonly device: BlockDevice
  /** Keeps persistent reservations over a restart, as FileReservationStore does; undefined: APTPL is refused. */
  readonly store: ReservationStore | undefined
  readonly log: Log
}

/**
 * The SCSI side of the target of one volume: LUN 1 is the volume, LUN 0 a controller that says so. There is nothing to
 * close: when all commands are finished nothing of it is under way, but for a SANITIZE or a flush that nobody waits for.
 */
export class ScsiDeviceServer implements DeviceServer {
  abortCommands: DeviceServer['abortCommands'] = () => Promise.resolve()
  readonly #disk: Disk
  readonly #units: readonly LogicalUnit[]
  readonly #onDisk: CommandRunner<Disk>
  readonly #onController: CommandRunner<Controller>
  readonly #onNobody: CommandRunner<Nobody>

  private constructor({volume, target, device, log}: ScsiOptions, keeper: StateKeeper) {
    const identity = identityOf(volume, target)
    const disk = new Disk({
      identity,
      device,
      keeper,
      log,
      fail: (task, condition, detail, transferLength) => this.#onDisk.fail(task, condition, detail, transferLength),
      abortCommands: (nexus, except) => this.abortCommands(nexus, DISK_LUN, except),
    })
    const controller = new Controller(identity)
    const nobody = new Nobody()
    this.#disk = disk
    this.#units = [disk, controller, nobody]
    this.#onDisk = new CommandRunner(disk, DISK_COMMANDS, log)
    this.#onController = new CommandRunner(controller, CONTROLLER_COMMANDS, log)
    this.#onNobody = new CommandRunner(nobody, NOBODY_COMMANDS, log, CONDITION.UNIT_NOT_SUPPORTED)
  }

  /** Reads what has been kept. Throws LonghornError (CORRUPT, IO). */
  static async open(options: ScsiOptions): Promise<ScsiDeviceServer> {
    return new ScsiDeviceServer(options, await StateKeeper.open(options.store))
  }

  dispatch(task: ScsiTask): void {
    switch (task.lun) {
      case DISK_LUN:
        this.#disk.noticeSize()
        this.#onDisk.start(task)
        return
      case CONTROLLER_LUN:
        this.#onController.start(task)
        return
      default:
        this.#onNobody.start(task)
    }
  }

  nexusAdded(nexus: Nexus): void {
    for (const unit of this.#units) unit.addNexus(nexus)
  }

  nexusLost(nexus: Nexus): void {
    for (const unit of this.#units) unit.removeNexus(nexus)
  }

  reset(_by: Nexus, lun: number | undefined): void {
    for (const unit of this.#units) {
      if (lun === undefined || unit.lun === lun) unit.reset()
    }
  }

  taskSetCleared(by: Nexus, lun: number): void {
    this.#units.find(unit => unit.lun === lun)?.tell(CONDITION.COMMANDS_CLEARED, by)
  }

  hasUnit(lun: number): boolean {
    return lun === DISK_LUN || lun === CONTROLLER_LUN
  }
}
