/** Waits in a row that would have been short enough before looking is worth more than sleeping. */
const ENOUGH = 4
/** What a long time of such waits is worth, so that a single other one does not end it. */
const MOST = 16
/** What another one takes away: at a low rate, where each request brings a short wait and a long one, nothing is ever won. */
const OTHER_COSTS = 4
/** A turn that brought more than this does not lack work: then whoever brings more needs the processor. */
const FEW_MESSAGES = 2
const FEW_BYTES = 64 * 1024

/**
 * Decides when a wait for sockets looks again and again instead of sleeping. To be put to sleep and woken costs 10 to 50 µs, several times for
 * each request that comes alone, and on a virtual machine the most; looking costs processor time that others may need. So it
 * looks only while requests have come one by one and fast lately, and never longer than its limit.
 */
export class BusyPoll {
  /** The most that one wait looks before it sleeps, in milliseconds. 0: it sleeps at once. */
  limitMs = 0.2
  /** To be counted up by whoever reads requests and answers. */
  messages = 0
  /** By whoever receives. */
  bytes = 0
  #score = 0

  /** Whether the next wait should look first. */
  get worthwhile(): boolean {
    return this.#score >= ENOUGH && this.limitMs > 0
  }

  /** To be told how long each wait took, looking or asleep, and whether something happened that ended it. Counts from 0 again. */
  waited(milliseconds: number, happened: boolean): void {
    const alone = this.messages <= FEW_MESSAGES && this.bytes <= FEW_BYTES
    if (alone && happened && milliseconds <= this.limitMs) this.#score = Math.min(this.#score + 1, MOST)
    else this.#score = Math.max(this.#score - OTHER_COSTS, 0)
    this.messages = 0
    this.bytes = 0
  }
}
