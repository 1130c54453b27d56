// The contract between the iSCSI transport (sessions, PDUs, data transfer) and the SCSI device server (commands, sense,
// reservations). Neither knows more of the other than what stands here, so each has its own tests.
import type {Slab} from '../../../lib/net/slab.js'

/** An initiator port as the target sees it: one session. Reservations and unit attentions belong to it. */
export interface Nexus {
  /** `iqn.1993-08.org.debian:01:abc` */
  readonly initiatorName: string
  /** The session's ISID, 6 bytes; with the name it is the initiator port, also over reconnects. */
  readonly isid: Buffer
  /** Unique among the sessions of this target's life. */
  readonly id: number
  /** For the log: name and address. */
  readonly peer: string
}

/** SAM-5 task attributes. */
export type TaskAttribute = 'simple' | 'ordered' | 'head-of-queue' | 'aca' | 'untagged'

/** SAM-5 status codes that are used here. */
export const STATUS = {GOOD: 0x00, CHECK_CONDITION: 0x02, BUSY: 0x08, RESERVATION_CONFLICT: 0x18, TASK_SET_FULL: 0x28, TASK_ABORTED: 0x40} as const

/** Takes the data of a write as it arrives. */
export interface DataSink {
  /**
   * The next `length` bytes (1 to 128 KiB) of what receiveData() asked for, `offset` bytes from its beginning; in order,
   * without gaps. They stay as they are until the end of this turn of the reactor, which is what BlockDevice.submit() wants.
   */
  onPiece(task: ScsiTask, slab: Slab, start: number, length: number, offset: number): void
  /** Everything has arrived, or the initiator has sent all it is going to (`received` bytes), or the command was aborted (`task.aborted` is then set). Called once: without it the device server could not know that it may finish. */
  onEnd(task: ScsiTask, received: number): void
}

/** One SCSI command, from dispatch() to finish(). Implemented by the transport; the objects are reused. */
export interface ScsiTask {
  readonly nexus: Nexus
  /** The logical unit number; -1 for an address in a form that no unit of ours has. */
  readonly lun: number
  /** The command descriptor block: 16 bytes, or more with an additional header segment. Valid until finish(). */
  readonly cdb: Buffer
  readonly attribute: TaskAttribute
  /** Bytes that the initiator is ready to send, and to take. */
  readonly expectedOut: number
  readonly expectedIn: number
  /** Set when a task management function or the end of the session took the command back: no more data will come and what is sent is dropped, but finish() must still be called when nothing of it is under way any more. */
  readonly aborted: boolean
  /** For the device server's own state of this command. */
  state: unknown

  /**
   * Asks for `length` bytes of parameter data, together; at most 1 MiB, the caller checks. `done` is called with what came, which is less when the
   * initiator expected to send less. When the command is aborted it is called with what there is, `task.aborted` set. At most one of receiveParameters and receiveData per command.
   */
  receiveParameters(length: number, done: (task: ScsiTask, data: Buffer) => void): void
  /** Asks for `length` bytes (of any length) that are passed on as they arrive. */
  receiveData(length: number, sink: DataSink): void
  /** Sends `length` bytes at `offset` of the data-in buffer, by reference as in SendQueue.push(). In any order; the transport puts them in order if it has to, and drops what lies beyond expectedIn (residual overflow). */
  sendData(slab: Slab, start: number, length: number, offset: number): void
  /** Sends all of a small answer (INQUIRY, MODE SENSE, …), which is copied. */
  sendParameters(data: Buffer): void
  /**
   * Ends the command. `sense`: fixed or descriptor format bytes with CHECK CONDITION. `transferLength`: the bytes the command was about
   * in the direction it moves data, for the residual counts. The task object must not be used afterwards.
   */
  finish(status: number, sense?: Buffer, transferLength?: number): void
}

/** The SCSI side of a target: all its logical units. */
export interface DeviceServer {
  /**
   * Set by the transport. Takes back all commands of `nexus` for `lun` but `except`, which is the PREEMPT AND ABORT that asks for it,
   * as a task management function would: those of another session than its own end with TASK ABORTED (TAS is 1), its own without
   * an answer. Resolves when each of them has been finished.
   */
  abortCommands: (nexus: Nexus, lun: number, except: ScsiTask) => Promise<void>
  /** Starts a command; it may finish at once. */
  dispatch(task: ScsiTask): void
  /** A session began or ended. Unit attentions (power on) and reservations follow from it; commands of an ended session are aborted by the transport. */
  nexusAdded(nexus: Nexus): void
  nexusLost(nexus: Nexus): void
  /** After the transport has aborted the commands concerned: LOGICAL UNIT RESET and TARGET RESET (`lun` undefined), which establish unit attentions and release SPC-2 reservations. CLEAR TASK SET tells the other sessions by unit attention. */
  reset(by: Nexus, lun: number | undefined): void
  taskSetCleared(by: Nexus, lun: number): void
  /** The logical unit numbers there are, for SendTargets tests and TMF checks. */
  hasUnit(lun: number): boolean
}
