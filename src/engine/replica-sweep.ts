import type {ReplicaLink} from './replica-link.js'

/** How often replicas are looked after: time-outs, pings. */
const SWEEP_MS = 1000

/** Looks after the connections of a volume's replicas, again and again. Does not keep the process alive. */
export class ReplicaSweep {
  readonly #members: () => readonly ReplicaLink[]
  #sweptAt = performance.now()
  #timer: NodeJS.Timeout | undefined

  /** `members`: those in use. */
  constructor(members: () => readonly ReplicaLink[]) {
    this.#members = members
  }

  start(): void {
    this.#sweptAt = performance.now()
    this.#timer = setInterval(() => this.#sweep(), SWEEP_MS).unref()
  }

  /** Until start(). Safe twice. */
  stop(): void {
    clearInterval(this.#timer)
  }

  #sweep(): void {
    const now = performance.now()
    const stoodStill = now - this.#sweptAt > 2 * SWEEP_MS
    this.#sweptAt = now
    // This process was suspended, or very busy: answers may be waiting in the sockets, so they are looked at first.
    if (stoodStill) return
    for (const link of this.#members()) link.client.sweep()
  }
}
