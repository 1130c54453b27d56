import {fdatasync} from 'node:fs'
import type {Gate} from './gate.js'
import {ioFailure} from './io-failure.js'

const NOTHING_TO_DO = Promise.resolve()

/** Makes the data of a file durable, and calls back with the error or null. */
type SyncFile = (fd: number, done: (error: Error | null) => void) => void

/** Something beside the files that one flush, the next one, has to make durable. */
export interface OnceStep {
  sync(done: (error: Error | null) => void): void
  /** Called when it is durable. */
  synced(): void
}

interface Waiter {
  resolve(): void
  reject(error: unknown): void
}

/**
 * Makes what has been written survive a power cut, for many callers at once.
 *
 * One fdatasync runs at a time. Whoever asks while it runs, after something more was written, waits for the next one,
 * which all of them share: it starts the moment the running one ends. With 64 durable writes of 4 KiB in flight that
 * gives five times the writes per second of RWF_DSYNC on each.
 */
export class Flusher {
  #waiting: Waiter[] = []
  #served: Waiter[] = []
  #fds: readonly number[]
  #what: string
  #once: OnceStep[] = []
  #onceRunning: OnceStep[] = []
  #running = false
  #changes = 0
  // Whoever had the replica open before us may have gone without flushing.
  #unflushed = true

  /** `fds` are synced together; `what` names them in errors. A failure shuts the gate: what was lost stays lost. */
  constructor(
    fds: readonly number[],
    what: string,
    readonly gate: Gate,
    readonly syncFile: SyncFile = fdatasync,
  ) {
    this.#fds = fds
    this.#what = what
  }

  /** Something has been written since this was made. */
  get touched(): boolean {
    return this.#changes > 0
  }

  /** Grows with what is written. */
  get changes(): number {
    return this.#changes
  }

  /** Says that something was written, so that a flush asked for from now on has work to do. */
  touch(): void {
    this.#unflushed = true
    this.#changes += 1
  }

  /** From now on `fds` are synced, and with the next flush `once` as well: what the files so far still hold in memory. */
  switchTo(fds: readonly number[], what: string, once: readonly OnceStep[]): void {
    this.#fds = fds
    this.#what = what
    this.#once.push(...once)
    this.#unflushed = true
  }

  /** Resolves when everything whose write was over before this call is on the disk. */
  flush(): Promise<void> {
    return this.gate.reason === undefined ? this.sync() : Promise.reject(this.gate.reason)
  }

  /** As `flush`, also when the gate is shut: the last step of an orderly close. */
  sync(): Promise<void> {
    if (!this.#unflushed && !this.#running) return NOTHING_TO_DO
    return new Promise((resolve, reject) => {
      // Nothing was written since the running one began: it covers this request as well.
      const queue = this.#unflushed ? this.#waiting : this.#served
      queue.push({resolve, reject})
      if (!this.#running) this.#start()
    })
  }

  #start(): void {
    this.#running = true
    this.#unflushed = false
    this.#served = this.#waiting
    this.#waiting = []
    const once = this.#once
    this.#onceRunning = once
    this.#once = []
    let left = this.#fds.length + once.length
    let failure: unknown
    const finish = (error: unknown): void => {
      failure ??= error ?? undefined
      left -= 1
      if (left === 0) this.#finish(failure)
    }
    for (const fd of this.#fds) this.syncFile(fd, finish)
    for (const step of once) step.sync(finish)
  }

  #finish(failure: unknown): void {
    this.#running = false
    const served = this.#served
    this.#served = []
    if (failure !== undefined) {
      const reason = this.gate.fail(ioFailure(`flushing ${this.#what}`, failure))
      const all = [...served, ...this.#waiting]
      this.#waiting = []
      for (const waiter of all) waiter.reject(reason)
      return
    }
    for (const step of this.#onceRunning) step.synced()
    this.#onceRunning = []
    // Started before those served are told: they will ask again, and must not get a turn of their own each.
    if (this.#waiting.length > 0) this.#start()
    for (const waiter of served) waiter.resolve()
  }
}
