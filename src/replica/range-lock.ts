/**
 * Keeps operations that change the same blocks from running at the same time.
 *
 * A synchronous operation needs no lock: nothing else runs meanwhile. One that waits for the thread pool holds its range
 * from its call to its end. Whatever changes an overlapping range, synchronous or not, waits for it, and so in turn
 * waits what overlaps the waiting one: overlapping changes take effect in the order in which they were asked for,
 * which is the same on every replica. Ranges are [first, end) in blocks, because a write of part of a block is a
 * read-merge-write of all of it.
 */
export class RangeLock {
  readonly #tickets: Ticket[] = []
  #idle: (() => void)[] = []

  /** True when a change of this range would have to wait. */
  overlaps(first: number, end: number): boolean {
    for (const ticket of this.#tickets) {
      if (ticket.first < end && first < ticket.end) return true
    }
    return false
  }

  /** Asks for a range. It is held once `ticket.ready` has resolved, at once when that is undefined; then release it. */
  acquire(first: number, end: number): Ticket {
    const ticket = new Ticket(first, end)
    for (const earlier of this.#tickets) {
      if (earlier.conflictsWith(ticket)) ticket.waitFor(earlier)
    }
    this.#tickets.push(ticket)
    return ticket
  }

  release(ticket: Ticket): void {
    this.#tickets.splice(this.#tickets.indexOf(ticket), 1)
    ticket.finish()
    if (this.#tickets.length > 0) return
    const waiting = this.#idle
    this.#idle = []
    for (const wake of waiting) wake()
  }

  /** Resolves when no range is held or asked for. */
  drained(): Promise<void> {
    if (this.#tickets.length === 0) return Promise.resolve()
    return new Promise(resolve => {
      this.#idle.push(resolve)
    })
  }
}

/** A place in the queue for one range. */
export class Ticket {
  ready: Promise<void> | undefined
  #before = 0
  #wake: (() => void) | undefined
  readonly #after: Ticket[] = []

  constructor(
    readonly first: number,
    readonly end: number,
  ) {}

  conflictsWith(other: Ticket): boolean {
    return this.first < other.end && other.first < this.end
  }

  waitFor(earlier: Ticket): void {
    this.#before += 1
    earlier.#after.push(this)
    this.ready ??= new Promise(resolve => {
      this.#wake = resolve
    })
  }

  finish(): void {
    for (const later of this.#after) {
      later.#before -= 1
      if (later.#before === 0) later.#wake?.()
    }
  }
}
