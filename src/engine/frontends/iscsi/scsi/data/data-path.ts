import type {BlockDevice} from '../../../../../protocol/block-device.js'
import {STATUS, type ScsiTask} from '../../scsi-task.js'
import {FUA, type Layout} from '../cdb.js'
import {BLOCK_BYTES, blockCount, LIMIT} from '../geometry.js'
import {CONDITION, type Condition, type SenseDetail} from '../sense.js'
import {DeviceGate} from './device-gate.js'
import {PiecePool} from './piece.js'
import {ReadTransfer} from './read-transfer.js'
import {WriteTransfer} from './write-transfer.js'

const PROTECTION_FIELD = {field: {in: 'cdb', byte: 1, bit: 7}} as const

/** READ and WRITE of all lengths: what a disk does all day. No promise, closure or buffer is made per command. */
export class DataPath {
  readonly gate: DeviceGate
  readonly pieces: PiecePool
  readonly #reads: ReadTransfer[] = []
  readonly #writes: WriteTransfer[] = []

  constructor(
    readonly device: BlockDevice,
    /** Ends a command with CHECK CONDITION. */
    readonly fail: (task: ScsiTask, condition: Condition, detail?: SenseDetail, transferLength?: number) => void,
  ) {
    this.gate = new DeviceGate(device)
    this.pieces = new PiecePool(this.gate)
  }

  read(task: ScsiTask, layout: Layout, flags: number): void {
    const lba = layout.lba(task.cdb)
    const count = layout.blocks(task.cdb)
    if (!this.#accepts(task, layout, flags, lba, count)) return
    const transfer = this.#reads.pop() ?? new ReadTransfer(this)
    transfer.start(task, lba * BLOCK_BYTES, count * BLOCK_BYTES, (flags & FUA) !== 0)
  }

  write(task: ScsiTask, layout: Layout, flags: number): void {
    const lba = layout.lba(task.cdb)
    const count = layout.blocks(task.cdb)
    if (!this.#accepts(task, layout, flags, lba, count)) return
    if (count === 0) {
      task.finish(STATUS.GOOD, undefined, 0)
      return
    }
    const transfer = this.#writes.pop() ?? new WriteTransfer(this)
    transfer.start(task, lba * BLOCK_BYTES, count * BLOCK_BYTES, (flags & FUA) !== 0)
  }

  /** Called by a transfer that has nothing under way any more. */
  giveRead(transfer: ReadTransfer): void {
    this.#reads.push(transfer)
  }

  giveWrite(transfer: WriteTransfer): void {
    this.#writes.push(transfer)
  }

  #accepts(task: ScsiTask, layout: Layout, flags: number, lba: number, count: number): boolean {
    if ((flags & 0xe0) !== 0) this.fail(task, CONDITION.INVALID_FIELD_IN_CDB, PROTECTION_FIELD)
    else if (lba + count > blockCount(this.device)) this.fail(task, CONDITION.LBA_OUT_OF_RANGE)
    else if (count > LIMIT.TRANSFER) this.fail(task, CONDITION.INVALID_FIELD_IN_CDB, {field: {in: 'cdb', byte: layout.blocksAt}})
    else return true
    return false
  }
}
