import {Slab, SlabPool} from '../../../../../../src/lib/net/slab.js'
import {STATUS, type DataSink, type DeviceServer, type Nexus, type ScsiTask} from '../../../../../../src/engine/frontends/iscsi/scsi-task.js'

const BLOCK_BYTES = 512
const PIECE_BYTES = 128 * 1024
const unpooled = new SlabPool(0, 0)

/** Operation codes of the commands that it knows. */
export const CODE = {TEST_UNIT_READY: 0x00, INQUIRY: 0x12, PARAMETERS: 0x15, READ: 0x28, WRITE: 0x2a, FAIL: 0xe0, IGNORE_DATA: 0xe1, LATE: 0xe2}

export const SENSE = Buffer.from('700005000000000a00000000240000000000', 'hex')

/** What happened, for tests of what a device server is told. */
export type Event = readonly [what: string, ...details: unknown[]]

/**
 * A device server that is just large enough to test a transport with: two units, a disk in memory as unit 1. It can be told
 * to hold its commands, and to read in any order.
 */
export class FakeDeviceServer implements DeviceServer {
  abortCommands: DeviceServer['abortCommands'] = () => Promise.resolve()
  readonly bytes: Buffer
  readonly events: Event[] = []
  /** `now`: during dispatch(). `later`: in the next pass of Node's loop. `held`: when release() says so. */
  mode: 'now' | 'later' | 'held' = 'now'
  /** The order in which the pieces of a read are sent. */
  order: (pieces: readonly number[]) => readonly number[] = pieces => pieces
  pieceBytes = PIECE_BYTES
  /** Commands with the device server, now and at most. */
  running = 0
  mostRunning = 0
  mostBytes = 0
  readonly attributes: string[] = []
  #bytesRunning = 0
  readonly #held: (() => void)[] = []

  constructor(sizeBytes = 4 * 1024 * 1024) {
    this.bytes = Buffer.alloc(sizeBytes)
  }

  get held(): number {
    return this.#held.length
  }

  /** Goes on with what is held, all of it or so many. */
  release(count = Infinity): void {
    for (const go of this.#held.splice(0, count)) go()
  }

  dispatch(task: ScsiTask): void {
    this.running++
    this.#bytesRunning += task.expectedIn + task.expectedOut
    this.mostRunning = Math.max(this.mostRunning, this.running)
    this.mostBytes = Math.max(this.mostBytes, this.#bytesRunning)
    task.state = {expected: task.expectedIn + task.expectedOut}
    this.attributes.push(task.attribute)
    const code = task.cdb[0]!
    if (code === CODE.LATE) {
      // Asks for its data only when it is told to go on.
      this.#later(() => this.#write(task))
      return
    }
    if (code === CODE.WRITE) this.#write(task)
    else if (code === CODE.PARAMETERS) this.#parameters(task)
    else this.#later(() => this.#run(task, code))
  }

  nexusAdded(nexus: Nexus): void {
    this.events.push(['added', nexus.initiatorName, nexus.isid.toString('hex')])
  }

  nexusLost(nexus: Nexus): void {
    this.events.push(['lost', nexus.initiatorName, nexus.isid.toString('hex')])
  }

  reset(by: Nexus, lun: number | undefined): void {
    this.events.push(['reset', by.initiatorName, lun])
  }

  taskSetCleared(by: Nexus, lun: number): void {
    this.events.push(['cleared', by.initiatorName, lun])
  }

  hasUnit(lun: number): boolean {
    return lun === 0 || lun === 1
  }

  #run(task: ScsiTask, code: number): void {
    switch (code) {
      case CODE.TEST_UNIT_READY:
        this.#finish(task, STATUS.GOOD, undefined, 0)
        return
      case CODE.INQUIRY: {
        const data = Buffer.from('00'.repeat(8) + '4c4f4e47484f524e'.repeat(4), 'hex').subarray(0, task.cdb[4])
        task.sendParameters(data)
        this.#finish(task, STATUS.GOOD, undefined, data.length)
        return
      }
      case CODE.READ:
        this.#read(task)
        return
      case CODE.IGNORE_DATA:
        this.#finish(task, STATUS.GOOD, undefined, 0)
        return
      default:
        this.#finish(task, STATUS.CHECK_CONDITION, SENSE, 0)
    }
  }

  #read(task: ScsiTask): void {
    const {offset, length} = range(task.cdb)
    if (offset + length > this.bytes.length) {
      this.#finish(task, STATUS.CHECK_CONDITION, SENSE, 0)
      return
    }
    const pieces = Array.from({length: Math.ceil(length / this.pieceBytes)}, (_, index) => index * this.pieceBytes)
    for (const at of this.order(pieces)) {
      const bytes = Math.min(this.pieceBytes, length - at)
      const slab = new Slab(bytes + 8, unpooled)
      slab.references = 1
      this.bytes.copy(slab.buffer, 4, offset + at, offset + at + bytes)
      task.sendData(slab, 4, bytes, at)
    }
    this.#finish(task, STATUS.GOOD, undefined, length)
  }

  #write(task: ScsiTask): void {
    const {offset, length} = range(task.cdb)
    if (offset + length > this.bytes.length) {
      this.#finish(task, STATUS.CHECK_CONDITION, SENSE, 0)
      return
    }
    const sink: DataSink = {
      onPiece: (_task, slab, start, bytes, at) => {
        this.events.push(['piece', at, bytes])
        slab.buffer.copy(this.bytes, offset + at, start, start + bytes)
      },
      onEnd: (ended, received) => {
        this.events.push(['end', received, ended.aborted])
        if (ended.aborted) this.#finish(ended, STATUS.GOOD)
        else this.#later(() => this.#finish(ended, STATUS.GOOD, undefined, length))
      },
    }
    task.receiveData(length, sink)
  }

  #parameters(task: ScsiTask): void {
    const length = task.cdb[4]!
    task.receiveParameters(length, (ended, data) => {
      this.events.push(['parameters', data.toString('hex'), ended.aborted])
      this.#finish(ended, STATUS.GOOD, undefined, length)
    })
  }

  #later(go: () => void): void {
    if (this.mode === 'now') go()
    else if (this.mode === 'later') setImmediate(go)
    else this.#held.push(go)
  }

  #finish(task: ScsiTask, status: number, sense?: Buffer, transferLength?: number): void {
    this.running--
    this.#bytesRunning -= (task.state as {expected: number}).expected
    task.finish(status, sense, transferLength)
  }
}

function range(cdb: Buffer): {offset: number; length: number} {
  return {offset: cdb.readUInt32BE(2) * BLOCK_BYTES, length: cdb.readUInt16BE(7) * BLOCK_BYTES}
}
