import {reactor, type Flushable} from '../../../../lib/net/reactor.js'
import type {Budget} from '../../budget.js'
import {STATUS, type DeviceServer, type Nexus, type ScsiTask} from '../scsi-task.js'
import type {CommandWindow} from './command-window.js'
import type {Parameters} from './negotiation.js'
import {COMMAND_FLAG, NO_TAG, REJECT, type IncomingPdu, type RejectReason} from './pdu.js'
import type {PduWriter} from './pdu-writer.js'
import {SENSE} from './sense.js'
import {Task, type TaskContext} from './task.js'
import type {WriteTransfer} from './write-transfer.js'

/** Immediate commands are outside of the window. */
const MAX_IMMEDIATE = 32
/** Aborted writes whose data may still come; of more than these it is rejected. */
const MAX_ABANDONED = 256
/** Data that has come before it was asked for; with more, no more is received until some is taken. */
const MAX_HELD_BYTES = 16 * 1024 * 1024

/** The connection as its session sees it. */
export interface SessionLink {
  readonly writer: PduWriter
  /** Bytes that the initiator has not taken. */
  readonly unsentBytes: number
  reject(pdu: IncomingPdu, reason: RejectReason, why: string): void
  /** There may be room again for what was not received. */
  wake(): void
  /** Sends what is queued now, not at the end of the turn. */
  flush(): void
  readonly cid: number
  /** Ends the connection now. */
  end(why: string): void
  /** Sends what is queued, then closes. */
  endAfterFlush(): void
}

/** Which commands are meant; without any field all of them. */
export interface TaskFilter {
  readonly lun?: number | undefined
  readonly taskTag?: number | undefined
  readonly except?: ScsiTask | undefined
}

/**
 * A normal session: an initiator port as the device server knows it, and its commands. It has one connection at a time.
 *
 * Commands are handed to the device server in the order of their numbers, as long as what they may move fits into the
 * session's share of memory; the others wait here, so that pings and task management are answered meanwhile.
 */
export class Session implements TaskContext, Flushable {
  #heldBytes = 0
  /** By tag, as long as the initiator waits for an answer or the device server is at work. */
  readonly #tasks = new Map<number, Task>()
  readonly #free: Task[] = []
  #slots = 0
  /** Not given to the device server yet, in order. */
  #waiting: Task[] = []
  readonly #abandoned = new Set<number>()
  #immediate = 0
  /** What running commands may move. */
  #bytes = 0
  #closing = false
  #admitting = false
  #admissionPlanned = false
  /** Those who wait for the end of some tasks. */
  #watchers: Watcher[] = []
  readonly #dispatch = (task: ScsiTask): void => this.deviceServer.dispatch(task)

  constructor(
    readonly nexus: Nexus,
    readonly tsih: number,
    readonly deviceServer: DeviceServer,
    readonly parameters: Parameters,
    readonly window: CommandWindow,
    readonly budget: Budget,
    /** Replaced when the initiator reinstates its connection. */
    public link: SessionLink,
  ) {}

  get writer(): PduWriter {
    return this.link.writer
  }

  /** Commands that are not over. */
  get commands(): number {
    return this.#tasks.size
  }

  /** True when so much has come unasked that no more should be received. */
  get isFull(): boolean {
    return this.#heldBytes > MAX_HELD_BYTES
  }

  /**
   * A SCSI Command. Gives what takes the data that its PDU carries; undefined when there is none, or nobody wants it.
   * `digestError`: that data is not what was sent.
   */
  command(pdu: IncomingPdu, digestError: boolean): WriteTransfer | undefined {
    const {taskTag, immediate} = pdu
    if (taskTag === NO_TAG || this.#tasks.has(taskTag)) return this.#refuse(pdu, REJECT.INVALID_FIELD, 'a task tag that is in use, or none')
    if (immediate && this.#immediate >= MAX_IMMEDIATE) return this.#refuse(pdu, REJECT.TOO_MANY_IMMEDIATE, 'too many immediate commands')
    if (immediate) this.#immediate++
    const task = this.#begin(pdu)
    const sense = digestError ? SENSE.CRC_ERROR : this.#problemOf(pdu, task)
    if (sense !== undefined) task.fail(STATUS.CHECK_CONDITION, sense)
    else if (this.#closing) task.fail(STATUS.BUSY)
    else if (this.#waiting.length === 0 && this.#hasRoom(task)) this.#run(task)
    else this.#wait(task)
    return pdu.dataBytes > 0 ? task.write : undefined
  }

  /** A Data-Out PDU. Gives what takes its data; undefined when nobody wants it. */
  dataOut(pdu: IncomingPdu, digestError: boolean): WriteTransfer | undefined {
    const {taskTag} = pdu
    const task = this.#tasks.get(taskTag)
    if (task === undefined || !task.write.awaits(pdu)) {
      // The initiator need not know yet that the command was aborted.
      if (!this.#abandoned.has(taskTag)) this.link.reject(pdu, REJECT.INVALID_FIELD, 'data that belongs to no command')
      else if (pdu.isFinal) this.#abandoned.delete(taskTag)
      return undefined
    }
    const sense = digestError ? SENSE.CRC_ERROR : undefined
    const problem = task.write.beginSegment(pdu) ?? sense
    if (problem !== undefined) task.fail(STATUS.CHECK_CONDITION, problem)
    return task.write
  }

  /** The logical unit of a task, or undefined when there is no task with this tag. */
  lunOf(taskTag: number): number | undefined {
    return this.#tasks.get(taskTag)?.lun
  }

  /**
   * Takes commands back; they are answered with `status`, or not at all. `done` is called when each of them is over, which
   * may be at once: from then on nothing that they did can happen any more.
   */
  abort(filter: TaskFilter, status: number | undefined, done: () => void): void {
    const {lun, taskTag, except} = filter
    const chosen = [...this.#tasks.values()].filter(
      task => (lun === undefined || task.lun === lun) && (taskTag === undefined || task.taskTag === taskTag) && task !== except,
    )
    this.#waiting = this.#waiting.filter(task => !chosen.includes(task))
    const watcher = {tasks: new Set(chosen), done}
    this.#watchers.push(watcher)
    for (const task of chosen) task.abort(status)
    this.#settle(watcher)
  }

  /** The connection is gone, and with it all commands. What the device server still does for them comes to nothing. */
  dropCommands(): void {
    this.abort({}, undefined, () => undefined)
    // Their tags mean nothing to the next connection.
    this.#tasks.clear()
    this.#abandoned.clear()
  }

  /** New commands are answered with BUSY from now on. */
  refuseNew(): void {
    this.#closing = true
  }

  /** Starts waiting commands for which there is room now. */
  admit(): void {
    this.#admitWhatFits()
    // With nothing running, no task's end will start what waits: it is the output of this turn that is in the way.
    if (this.#waiting.length > 0 && this.#bytes === 0) this.#admitSoon()
  }

  /** Called by the reactor. */
  flush(): void {
    this.#admissionPlanned = false
    // What is still unsent then is more than the kernel takes, and the connection will tell when it has.
    this.link.flush()
    this.#admitWhatFits()
  }

  taskEnding(task: Task): void {
    this.#bytes -= task.charged
    task.charged = 0
    if (this.#tasks.get(task.taskTag) === task) this.#tasks.delete(task.taskTag)
    if (task.aborted && task.write.isOwed) this.#abandon(task.taskTag)
    if (task.immediate) this.#immediate--
    else this.window.release()
  }

  taskEnded(task: Task): void {
    this.#free.push(task)
    if (this.#watchers.length > 0) this.#tellWatchers(task)
    if (this.#waiting.length > 0) this.admit()
  }

  held(bytes: number): void {
    this.#heldBytes += bytes
    if (bytes < 0) this.link.wake()
  }

  #begin(pdu: IncomingPdu): Task {
    const task = this.#free.pop() ?? new Task(this, this.#slots++)
    const {flags, taskTag, lun} = pdu
    const length = pdu.word20 >>> 0
    const expectedOut = (flags & COMMAND_FLAG.WRITE) !== 0 ? length : 0
    const expectedIn = (flags & COMMAND_FLAG.READ) !== 0 ? length : 0
    task.begin(taskTag, flags & COMMAND_FLAG.ATTRIBUTE, expectedIn, expectedOut)
    task.lun = lun
    task.lunHigh = pdu.lunHigh
    task.lunLow = pdu.lunLow
    task.immediate = pdu.immediate
    task.write.begin(pdu.dataBytes > 0, !pdu.isFinal && pdu.dataBytes < Math.min(expectedOut, this.parameters.firstBurst))
    this.#tasks.set(taskTag, task)
    if (this.#abandoned.size > 0) this.#abandoned.delete(taskTag)
    return task
  }

  /** What is wrong with a command, as sense data; undefined: nothing that the transport knows of. */
  #problemOf(pdu: IncomingPdu, task: Task): Buffer | undefined {
    const block = pdu.commandBlock(task.cdbMemory)
    const {parameters} = this
    if (block === undefined) return SENSE.INVALID_COMMAND_FIELD
    task.cdb = block
    if (task.expectedOut > 0 && task.expectedIn > 0) return SENSE.INVALID_COMMAND_FIELD
    if (!pdu.isFinal && (parameters.initialR2T || task.expectedOut === 0)) return SENSE.UNEXPECTED_DATA
    if (pdu.dataBytes === 0) return undefined
    const allowed = parameters.immediateData ? Math.min(parameters.firstBurst, task.expectedOut) : 0
    return pdu.dataBytes > allowed ? SENSE.UNEXPECTED_DATA : undefined
  }

  #refuse(pdu: IncomingPdu, reason: RejectReason, why: string): undefined {
    if (!pdu.immediate) this.window.release()
    this.link.reject(pdu, reason, why)
  }

  #run(task: Task): void {
    task.charged = task.expectedIn + task.expectedOut
    this.#bytes += task.charged
    task.run(this.#dispatch)
  }

  #wait(task: Task): void {
    this.#waiting.push(task)
    if (this.#bytes === 0) this.#admitSoon()
  }

  #admitWhatFits(): void {
    if (this.#admitting) return
    this.#admitting = true
    while (this.#waiting.length > 0 && this.#hasRoom(this.#waiting[0]!)) this.#run(this.#waiting.shift()!)
    this.#admitting = false
  }

  #admitSoon(): void {
    if (this.#admissionPlanned) return
    this.#admissionPlanned = true
    reactor.flushSoon(this)
  }

  #hasRoom(task: Task): boolean {
    const unsent = this.link.unsentBytes
    const cost = task.expectedIn + task.expectedOut
    if (this.#bytes + unsent + cost <= this.budget.bytesPerConnection) return true
    // Whatever one command costs, it can be had when there is nothing else.
    return this.#bytes === 0 && unsent === 0
  }

  #abandon(taskTag: number): void {
    if (this.#abandoned.size < MAX_ABANDONED) this.#abandoned.add(taskTag)
  }

  #tellWatchers(task: Task): void {
    for (const watcher of [...this.#watchers]) {
      watcher.tasks.delete(task)
      this.#settle(watcher)
    }
  }

  #settle(watcher: Watcher): void {
    if (watcher.tasks.size > 0) return
    if (!this.#watchers.includes(watcher)) return
    this.#watchers = this.#watchers.filter(other => other !== watcher)
    watcher.done()
  }
}

interface Watcher {
  /** Those that are not over. */
  readonly tasks: Set<Task>
  readonly done: () => void
}
