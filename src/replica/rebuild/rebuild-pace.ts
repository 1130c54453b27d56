import {setMaxListeners} from 'node:events'
import {setTimeout as sleep} from 'node:timers/promises'

/** The share of the time that a rebuild may work while the volume is being written. */
const SHARE_WHEN_BUSY = 0.25
/** The longest that a pause lasts, in milliseconds. */
const LONGEST_PAUSE_MS = 500
/** The allowance that can pile up, in milliseconds of the permitted rate. */
const BURST_MS = 100

/** Keeps a rebuild below a rate, and out of the way of others. */
export class RebuildPace {
  #allowance = 0
  #filledAt = performance.now()
  /** The end of the last piece of work that was done while the volume was busy, with its pause. */
  #turn: Promise<unknown> = Promise.resolve()

  /** `bytesPerSecond`: 0 for no limit. `busy`: the volume is being used at this moment. */
  constructor(
    readonly bytesPerSecond: number,
    readonly busy: () => boolean,
    readonly signal: AbortSignal,
  ) {
    // Every piece that pauses listens: more than ten look like a leak to Node, which it says on stderr.
    setMaxListeners(0, signal)
  }

  /** Does a piece of work that moves `bytes`, beside others unless the volume is busy: then one after the other, with pauses. Throws the signal's reason. */
  async run<T>(bytes: number, work: () => Promise<T>): Promise<T> {
    await this.#afford(bytes)
    this.signal.throwIfAborted()
    if (!this.busy()) return work()
    const turn = this.#turn.then(() => this.#runSlowly(work))
    this.#turn = turn.catch(() => undefined)
    return turn
  }

  async #runSlowly<T>(work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted()
    const before = performance.now()
    const result = await work()
    if (this.busy()) {
      const spentMs = performance.now() - before
      await this.#pause(Math.min(LONGEST_PAUSE_MS, spentMs / SHARE_WHEN_BUSY - spentMs))
    }
    return result
  }

  async #afford(bytes: number): Promise<void> {
    if (this.bytesPerSecond === 0) return
    const now = performance.now()
    const most = (this.bytesPerSecond * BURST_MS) / 1000
    this.#allowance = Math.min(most, this.#allowance + ((now - this.#filledAt) * this.bytesPerSecond) / 1000)
    this.#filledAt = now
    this.#allowance -= bytes
    while (this.#allowance < 0) {
      // In parts: with a low rate it can be longer than a timer takes.
      const waitMs = Math.min(LONGEST_PAUSE_MS, Math.max(1, (-this.#allowance * 1000) / this.bytesPerSecond))
      await this.#pause(waitMs)
      const later = performance.now()
      this.#allowance += ((later - this.#filledAt) * this.bytesPerSecond) / 1000
      this.#filledAt = later
      this.signal.throwIfAborted()
    }
  }

  async #pause(ms: number): Promise<void> {
    if (ms < 1) return
    // What ends the pause early is looked at by the next piece.
    await sleep(ms, undefined, {signal: this.signal}).catch(() => undefined)
  }
}
