import type {Log} from '../lib/log.js'
import type {Io} from '../protocol/block-device.js'

export interface RecordGateOptions {
  /** Records durably on the members who they are; see Volume.recordMembers. */
  readonly record: () => Promise<void>
  /** Gets what has waited, in the order it was done. */
  readonly acknowledge: (done: readonly Io[]) => void
  readonly log: Log
}

/**
 * Lets no change be acknowledged while the members are being recorded: what only some of the replicas have is acknowledged when these
 * know that they are the members. That is when one of them was dropped, and with the first change.
 */
export class RecordGate {
  readonly #options: RecordGateOptions
  /** Changes that are done on all replicas and wait. Undefined while nothing is being recorded. */
  #waiting: Io[] | undefined
  /** What is being recorded is not what the members are any more. */
  #outdated = false
  #withNextChange = false
  #recording: Promise<void> | undefined
  #closed = false

  constructor(options: RecordGateOptions) {
    this.#options = options
  }

  /** The members are being recorded. */
  get isRecording(): boolean {
    return this.#waiting !== undefined
  }

  /** See Volume.recordBeforeChange(). */
  beginWithNextChange(): void {
    this.#withNextChange = true
  }

  /** To be called with every change before it goes to the replicas. */
  changeBegins(): void {
    if (this.#withNextChange) this.begin()
  }

  /** A member is gone, or it is the first change: the members are recorded, again if they are just being recorded. */
  begin(): void {
    this.#withNextChange = false
    this.#outdated = true
    if (this.#waiting !== undefined || this.#closed) return
    this.#waiting = []
    this.#recording = this.#record()
  }

  /** To be called with every change, and flush, that is done. True: it is kept until acknowledge(). */
  keeps(io: Io): boolean {
    if (this.#waiting === undefined) return false
    this.#waiting.push(io)
    return true
  }

  /** See Volume.recorded(). */
  async recorded(): Promise<void> {
    this.changeBegins()
    await this.#recording
  }

  /** Begins to record nothing more; what waits is let go when the record under way has ended. Safe twice. */
  close(): void {
    this.#closed = true
  }

  async #record(): Promise<void> {
    while (this.#outdated && !this.#closed) {
      this.#outdated = false
      try {
        await this.#options.record()
      } catch (error) {
        this.#options.log.error({err: error}, 'the members could not be recorded')
      }
    }
    const done = this.#waiting ?? []
    this.#waiting = undefined
    this.#options.acknowledge(done)
  }
}
