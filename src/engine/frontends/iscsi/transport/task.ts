import type {Slab} from '../../../../lib/net/slab.js'
import type {DataSink, Nexus, ScsiTask, TaskAttribute} from '../scsi-task.js'
import {NO_TAG, RESIDUAL_FLAG} from './pdu.js'
import {ReadTransfer, type ReadContext} from './read-transfer.js'
import {WriteTransfer, type WriteContext, type WriteOwner} from './write-transfer.js'

/** The session as its tasks see it. */
export interface TaskContext extends ReadContext, WriteContext {
  readonly nexus: Nexus
  /** The task is about to be answered … */
  taskEnding(task: Task): void
  /** … and over for the initiator and the device server. */
  taskEnded(task: Task): void
}

/** Attributes by their code in a SCSI Command. */
const ATTRIBUTES: readonly TaskAttribute[] = ['untagged', 'simple', 'ordered', 'head-of-queue', 'aca']

/**
 * One SCSI command of a session, from its PDU to its response:
 *
 *     waiting ──► running ──► [draining] ──► over
 *
 * `waiting` until there is room for it, `running` while the device server has it, `draining` while a response is held back
 * because the initiator is still bound to send data. The objects are reused.
 */
export class Task implements ScsiTask, WriteOwner {
  state: unknown
  lun = -1
  lunHigh = 0
  lunLow = 0
  taskTag = NO_TAG
  attribute: TaskAttribute = 'simple'
  expectedOut = 0
  expectedIn = 0
  aborted = false
  cdb: Buffer
  immediate = false
  phase: 'waiting' | 'running' | 'draining' | 'over' = 'over'
  /** Bytes that it was admitted for. */
  charged = 0
  readonly read: ReadTransfer
  readonly write: WriteTransfer
  /** Its own 16 bytes; a longer block is another object. */
  readonly #cdb = Buffer.alloc(16)
  #inDispatch = false
  /** It is answered with #failStatus in place of what the device server says. */
  #failed = false
  #failStatus = 0
  #failSense: Buffer | undefined
  /** An aborted command is answered with this status; undefined: not at all. */
  #abortStatus: number | undefined
  #status = 0
  #sense: Buffer | undefined
  #transferLength: number | undefined

  constructor(
    readonly context: TaskContext,
    /** Its place among the tasks of the session, which transfer tags are made of. */
    readonly slot: number,
  ) {
    this.cdb = this.#cdb
    this.read = new ReadTransfer(context)
    this.write = new WriteTransfer(context, this)
  }

  get nexus(): Nexus {
    return this.context.nexus
  }

  /** Where a command descriptor block of ordinary length goes. */
  get cdbMemory(): Buffer {
    return this.#cdb
  }

  /** Begins a new command. `attribute`: its code. */
  begin(taskTag: number, attribute: number, expectedIn: number, expectedOut: number): void {
    this.phase = 'waiting'
    this.taskTag = taskTag
    this.attribute = ATTRIBUTES[attribute] ?? 'simple'
    this.expectedIn = expectedIn
    this.expectedOut = expectedOut
    this.aborted = false
    this.state = undefined
    this.#failed = false
    this.#abortStatus = undefined
    this.read.begin(taskTag, expectedIn)
  }

  /** Gives it to the device server. */
  run(dispatch: (task: ScsiTask) => void): void {
    this.phase = 'running'
    this.#inDispatch = true
    dispatch(this)
    this.#inDispatch = false
    if (this.phase === 'running') this.write.start()
  }

  receiveParameters(length: number, done: (task: ScsiTask, data: Buffer) => void): void {
    this.write.receiveParameters(length, done)
    if (!this.#inDispatch) this.write.startSoon()
  }

  receiveData(length: number, sink: DataSink): void {
    this.write.receiveData(length, sink)
    if (!this.#inDispatch) this.write.startSoon()
  }

  sendData(slab: Slab, start: number, length: number, offset: number): void {
    if (!this.aborted) this.read.send(slab, start, length, offset)
  }

  sendParameters(data: Buffer): void {
    if (!this.aborted) this.read.sendCopy(data)
  }

  finish(status: number, sense?: Buffer, transferLength?: number): void {
    if (this.phase !== 'running') throw new Error('a command is finished that is not under way')
    this.#status = status
    this.#sense = sense
    this.#transferLength = transferLength
    // Of an aborted command no more comes.
    const mustWait = this.write.isOwed && (!this.aborted || this.#failed)
    if (!mustWait) {
      this.#end()
      return
    }
    this.phase = 'draining'
    // The device server may use its memory again.
    if (sense !== undefined) this.#sense = Buffer.from(sense)
    this.write.close()
  }

  writeDrained(): void {
    if (this.phase === 'draining') this.#end()
  }

  /** Ends the command with this status, whatever the device server says; it is not asked if it does not know of it yet. */
  fail(status: number, sense?: Buffer): void {
    if (this.#failed || this.aborted || this.phase === 'draining') return
    this.#failed = true
    this.#failStatus = status
    this.#failSense = sense
    this.aborted = true
    if (this.phase === 'running') {
      this.write.drop()
      return
    }
    this.phase = 'running'
    this.finish(status)
  }

  /**
   * Takes the command back. It is answered with `status`, or not at all. It is over when the device server has nothing
   * of it under way any more, which may be before this returns.
   */
  abort(status?: number): void {
    if (this.phase === 'over') return
    this.aborted = true
    this.#failed = false
    this.#abortStatus = status
    if (this.phase === 'running') {
      this.write.drop()
      return
    }
    // Nobody knows of it, or nobody waits for what is still to come.
    this.write.close()
    this.#end()
  }

  #end(): void {
    this.phase = 'over'
    this.write.close()
    this.read.end()
    // First, as the answer tells how many commands may be sent now.
    this.context.taskEnding(this)
    if (this.#failed) this.#respond(this.#failStatus, this.#failSense, 0)
    else if (!this.aborted) this.#respond(this.#status, this.#sense, this.#transferLength)
    else if (this.#abortStatus !== undefined) this.#respond(this.#abortStatus, undefined, 0)
    this.#sense = undefined
    this.context.taskEnded(this)
  }

  #respond(status: number, sense: Buffer | undefined, transferLength: number | undefined): void {
    const {read, write} = this
    const {writer} = this.context
    const expected = this.expectedOut > 0 ? this.expectedOut : this.expectedIn
    const moved = transferLength ?? (this.expectedOut > 0 ? write.passedOn : read.given)
    let flags = 0
    let residual = 0
    if (moved > expected) {
      flags = RESIDUAL_FLAG.OVERFLOW
      residual = moved - expected
    } else if (moved < expected) {
      flags = RESIDUAL_FLAG.UNDERFLOW
      residual = expected - moved
    }
    if (sense === undefined && read.pdus > 0 && writer.addStatus(this.taskTag, status, flags, residual)) return
    writer.scsiResponse(this.taskTag, status, flags, residual, read.pdus + write.r2ts, sense)
  }
}
