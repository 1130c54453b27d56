import {reactor} from '../../../../../lib/net/reactor.js'
import type {Slab} from '../../../../../lib/net/slab.js'
import type {DataSink, ScsiTask} from '../../scsi-task.js'
import {CheckCondition} from '../check-condition.js'
import {CONDITION} from '../sense.js'

/** What receiveParameters() of the transport takes. */
const MAX_PARAMETER_BYTES = 1024 * 1024

/** A part of a command's data, `offset` bytes from its beginning. Its bytes stay until the work on it has ended. */
export interface Part {
  readonly slab: Slab
  readonly start: number
  readonly length: number
  readonly offset: number
}

/** A parameter list. Throws when the initiator sends less than `length` bytes. */
export async function receiveParameters(task: ScsiTask, length: number): Promise<Buffer> {
  if (length === 0) return Buffer.alloc(0)
  if (length > MAX_PARAMETER_BYTES) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  const data = await new Promise<Buffer>(resolve => {
    task.receiveParameters(length, (_task, received) => resolve(Buffer.from(received)))
  })
  if (task.aborted) throw new CheckCondition(CONDITION.ABORTED_COMMAND)
  if (data.length < length) throw new CheckCondition(CONDITION.PARAMETER_LIST_LENGTH_ERROR)
  return data
}

/** Data whose length the command fixes: the initiator must be about to send exactly that. Throws before any is asked for. */
export function checkDataLength(task: ScsiTask, length: number): void {
  if (task.expectedOut !== length) throw new CheckCondition(CONDITION.INVALID_FIELD_IN_INFORMATION_UNIT)
}

/**
 * Has `work` done on each part of a command's data as it arrives, on several at a time. Resolves when all of it has been
 * done; rejects after that with the first failure, in the order of the data.
 */
export function receiveParts(task: ScsiTask, length: number, work: (part: Part) => Promise<void>): Promise<void> {
  if (length === 0) return Promise.resolve()
  return new Promise((resolve, reject) => {
    task.receiveData(length, new PartSink(work, resolve, reject))
  })
}

class PartSink implements DataSink {
  #pending = 1
  #failure: unknown
  #failedAt = Infinity

  constructor(
    readonly work: (part: Part) => Promise<void>,
    readonly resolve: () => void,
    readonly reject: (reason: unknown) => void,
  ) {}

  onPiece(_task: ScsiTask, slab: Slab, start: number, length: number, offset: number): void {
    if (this.#failure !== undefined) return
    this.#pending++
    slab.retain()
    void this.#workOn({slab, start, length, offset})
  }

  onEnd(): void {
    this.#oneLess()
  }

  async #workOn(part: Part): Promise<void> {
    try {
      await this.work(part)
    } catch (error) {
      if (part.offset < this.#failedAt) {
        this.#failure = error
        this.#failedAt = part.offset
      }
    }
    // The device may have queued the bytes by reference until the end of the turn.
    reactor.releaseAfterFlush(part.slab)
    this.#oneLess()
  }

  #oneLess(): void {
    if (--this.#pending > 0) return
    if (this.#failure === undefined) this.resolve()
    else this.reject(this.#failure)
  }
}
