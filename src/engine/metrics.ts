import {OP, type Io} from '../protocol/block-device.js'

/** What happened in one second. */
export interface Rates {
  readonly readBytes: number
  readonly writeBytes: number
  readonly reads: number
  readonly writes: number
  /** Mean, in nanoseconds; 0 without requests. */
  readonly readLatencyNs: number
  readonly writeLatencyNs: number
}

const SECOND_MS = 1000

/** The sums of one second for one kind of request. */
class Sums {
  bytes = 0
  requests = 0
  /** A request may be served in several parts; each has a latency of its own. */
  parts = 0
  latencyMs = 0
}

interface Second {
  readonly reads: Sums
  readonly writes: Sums
}

/**
 * Counts the reads and writes that succeeded, second by second. A request costs a comparison and four additions; there is
 * no timer: whoever comes first in a new second closes the old one.
 */
export class Metrics {
  #began: number
  #current: Second = emptySecond()
  #last: Second = emptySecond()

  /** `nowMs`: as performance.now() counts. */
  constructor(nowMs: number) {
    this.#began = nowMs
  }

  /** A request has succeeded. */
  count(io: Io, nowMs: number): void {
    if (nowMs - this.#began >= SECOND_MS) this.#turnOver(nowMs)
    const sums = io.op === OP.READ ? this.#current.reads : this.#current.writes
    sums.bytes += io.length
    if (!io.continued) sums.requests++
    sums.parts++
    sums.latencyMs += nowMs - io.startedAt
  }

  /** The last full second. */
  rates(nowMs: number): Rates {
    if (nowMs - this.#began >= SECOND_MS) this.#turnOver(nowMs)
    const {reads, writes} = this.#last
    return {
      readBytes: reads.bytes,
      writeBytes: writes.bytes,
      reads: reads.requests,
      writes: writes.requests,
      readLatencyNs: meanNs(reads),
      writeLatencyNs: meanNs(writes),
    }
  }

  #turnOver(nowMs: number): void {
    const seconds = Math.floor((nowMs - this.#began) / SECOND_MS)
    this.#last = seconds === 1 ? this.#current : emptySecond()
    this.#current = emptySecond()
    this.#began += seconds * SECOND_MS
  }
}

function emptySecond(): Second {
  return {reads: new Sums(), writes: new Sums()}
}

function meanNs({latencyMs, parts}: Sums): number {
  return parts === 0 ? 0 : Math.round((latencyMs / parts) * 1e6)
}
