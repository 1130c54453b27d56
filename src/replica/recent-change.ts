/** For how long after a change something counts as being used, in milliseconds. */
const RECENT_MS = 100

/** Whether a counter has moved lately. */
export class RecentChange {
  #last = 0
  #movedAt = -Infinity

  constructor(readonly count: () => number) {}

  seen(): boolean {
    const now = performance.now()
    const count = this.count()
    if (count !== this.#last) this.#movedAt = now
    this.#last = count
    return now - this.#movedAt < RECENT_MS
  }
}
