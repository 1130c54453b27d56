import {slabs} from '../../../../../../src/lib/net/slab.js'
import type {DataSink, Nexus, ScsiTask, TaskAttribute} from '../../../../../../src/engine/frontends/iscsi/scsi-task.js'

export interface Result {
  readonly status: number
  /** `5/24/00` with CHECK CONDITION, else empty. */
  readonly sense: string
  readonly senseBytes: Buffer
  /** Data-in, as far as it was sent. */
  readonly data: Buffer
  readonly transferLength: number | undefined
}

export interface TaskOptions {
  readonly nexus: Nexus
  readonly lun: number
  readonly cdb: Buffer
  readonly out: Buffer
  readonly expectedIn: number
  readonly attribute: TaskAttribute
  /** Data-out comes in pieces of this length. */
  readonly pieceBytes: number
  /** Data-out comes later than it is asked for. */
  readonly late: boolean
}

/** A command as the transport would make it, which keeps a close watch on the device server. */
export class FakeTask implements ScsiTask {
  readonly nexus: Nexus
  readonly lun: number
  readonly cdb: Buffer
  readonly attribute: TaskAttribute
  readonly expectedOut: number
  readonly expectedIn: number
  aborted = false
  state: unknown
  readonly result: Promise<Result>
  finished = 0
  readonly #options: TaskOptions
  #resolve!: (result: Result) => void
  readonly #data: Buffer
  #sent = 0
  #asked = false
  /** Ends the data that the device server waits for. */
  #cut: (() => void) | undefined

  constructor(options: TaskOptions) {
    this.#options = options
    this.nexus = options.nexus
    this.lun = options.lun
    this.cdb = Buffer.alloc(Math.max(16, options.cdb.length))
    options.cdb.copy(this.cdb)
    this.attribute = options.attribute
    this.expectedOut = options.out.length
    this.expectedIn = options.expectedIn
    this.#data = Buffer.alloc(options.expectedIn)
    this.result = new Promise(resolve => {
      this.#resolve = resolve
    })
  }

  /** As a task management function does. */
  abort(): void {
    this.aborted = true
    this.#cut?.()
  }

  receiveParameters(length: number, done: (task: ScsiTask, data: Buffer) => void): void {
    this.#ask(length)
    if (length > 1024 * 1024) throw new Error(`${length} bytes of parameters`)
    let over = false
    const deliver = (): void => {
      if (over) return
      over = true
      // The transport's buffer is its own again afterwards.
      const data = Buffer.from(this.#options.out.subarray(0, length))
      done(this, data)
      data.fill(0xee)
    }
    this.#cut = deliver
    if (this.#options.late) setImmediate(deliver)
    else deliver()
  }

  receiveData(length: number, sink: DataSink): void {
    this.#ask(length)
    const {out, pieceBytes, late} = this.#options
    const end = Math.min(length, out.length)
    let at = 0
    let over = false
    const finish = (): void => {
      if (over) return
      over = true
      sink.onEnd(this, at)
    }
    this.#cut = finish
    const next = (): void => {
      if (over) return
      if (at === end) {
        finish()
        return
      }
      const count = Math.min(pieceBytes, end - at)
      const slab = slabs.take()
      out.copy(slab.buffer, 100, at, at + count)
      sink.onPiece(this, slab, 100, count, at)
      at += count
      // Whoever needs the bytes longer has taken a reference by now.
      if (slab.references === 1) slab.buffer.fill(0xee, 100, 100 + count)
      slab.release()
      if (late) setImmediate(next)
      else next()
    }
    if (late) setImmediate(next)
    else next()
  }

  sendData(slab: {readonly buffer: Buffer}, start: number, length: number, offset: number): void {
    this.#checkLive()
    slab.buffer.copy(this.#data, offset, start, start + length)
    this.#sent = Math.max(this.#sent, Math.min(offset + length, this.expectedIn))
  }

  sendParameters(data: Buffer): void {
    this.#checkLive()
    if (data.length === 0) throw new Error('nothing is sent')
    data.copy(this.#data)
    this.#sent = Math.min(data.length, this.expectedIn)
  }

  finish(status: number, sense?: Buffer, transferLength?: number): void {
    this.finished++
    this.#checkLive()
    const senseBytes = sense ?? Buffer.alloc(0)
    this.#resolve({status, sense: senseName(senseBytes), senseBytes, data: this.#data.subarray(0, this.#sent), transferLength})
  }

  #ask(length: number): void {
    this.#checkLive()
    if (this.#asked || length < 1) throw new Error('data is asked for once, and only where there is some')
    this.#asked = true
  }

  #checkLive(): void {
    if (this.finished > 1 || (this.finished === 1 && this.#isOver)) throw new Error('the command is finished already')
    if (this.finished === 1) this.#isOver = true
  }

  #isOver = false
}

/** `5/24/00`, of either format. */
export function senseName(sense: Buffer): string {
  if (sense.length === 0) return ''
  const [key, asc, ascq] = (sense[0]! & 0x7f) === 0x72 ? [sense[1], sense[2], sense[3]] : [sense[2]! & 0xf, sense[12], sense[13]]
  return [key!.toString(16), ...[asc!, ascq!].map(code => code.toString(16).padStart(2, '0'))].join('/')
}
