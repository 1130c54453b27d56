import {OP, type Io} from '../protocol/block-device.js'
import type {Slab} from '../lib/net/slab.js'

/** A change that waits for a range. */
export interface HeldChange {
  readonly io: Io
  readonly slab: Slab | undefined
  readonly start: number
}

interface Hold {
  /** The first generation that has to wait for it; it waits for those before. */
  readonly generation: number
  readonly offset: number
  readonly end: number
  readonly waiting: HeldChange[]
}

interface Generation {
  readonly number: number
  inFlight: number
  readonly done: (() => void)[]
}

/**
 * Lets one range of the volume stand still while everything else goes on. Changes (WRITE, DISCARD, WRITE_ZEROES) are counted by
 * generation; a hold begins a new one and has its range for itself when those before have ended. What comes for the range meanwhile
 * waits, in its order. A hold waits only for what came before it, so holds never wait for each other in a circle.
 */
export class ChangeGate {
  readonly #holds: Hold[] = []
  /** Oldest first; the last one counts what begins now. */
  readonly #generations: Generation[] = [{number: 1, inFlight: 0, done: []}]
  #present = this.#generations[0]!

  /** To be called with every request before it begins. False: it is kept, and handed back by release(). */
  admit(io: Io, slab: Slab | undefined, start: number): boolean {
    if (io.op === OP.READ || io.op === OP.FLUSH) {
      io.generation = 0
      return true
    }
    // Also what has to wait: a hold that comes later has to wait for it.
    this.#present.inFlight++
    io.generation = this.#present.number
    if (this.#holds.length === 0) return true
    const hold = this.#holdOver(io)
    if (hold === undefined) return true
    slab?.retain()
    hold.waiting.push({io, slab, start})
    return false
  }

  /** To be called with every request when it has ended. */
  ended(io: Io): void {
    if (io.generation === 0) return
    const generation = this.#generations.find(({number}) => number === io.generation)!
    io.generation = 0
    generation.inFlight--
    if (generation !== this.#present) this.#retire()
  }

  /**
   * Holds [offset, offset + length); resolves to its release when nothing changes it any more. The release hands back what has
   * waited and may go on, in order, to be begun without asking admit() again.
   */
  async hold(offset: number, length: number): Promise<() => readonly HeldChange[]> {
    const before = this.#present
    this.#present = {number: before.number + 1, inFlight: 0, done: []}
    const hold: Hold = {generation: this.#present.number, offset, end: offset + length, waiting: []}
    this.#holds.push(hold)
    this.#generations.push(this.#present)
    await new Promise<void>(resolve => {
      before.done.push(resolve)
      this.#retire()
    })
    return () => this.#release(hold)
  }

  #release(hold: Hold): HeldChange[] {
    this.#holds.splice(this.#holds.indexOf(hold), 1)
    const free: HeldChange[] = []
    for (const change of hold.waiting) {
      const other = this.#holdOver(change.io)
      if (other === undefined) free.push(change)
      else other.waiting.push(change)
    }
    return free
  }

  #holdOver(io: Io): Hold | undefined {
    return this.#holds.find(({generation, offset, end}) => generation <= io.generation && io.offset < end && offset < io.offset + io.length)
  }

  #retire(): void {
    while (this.#generations.length > 1 && this.#generations[0]!.inFlight === 0) {
      for (const wake of this.#generations.shift()!.done) wake()
    }
  }
}
