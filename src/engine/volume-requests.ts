import {reactor} from '../lib/net/reactor.js'
import type {Slab} from '../lib/net/slab.js'
import {OP, type Io} from '../protocol/block-device.js'
import {ChangeGate, type HeldChange} from './change-gate.js'
import type {Metrics} from './metrics.js'
import type {RecordGate} from './record-gate.js'

/** The requests of a volume: when each may begin, and when it has ended. This is where they stand still at a barrier. */
export class VolumeRequests {
  /** Those that have begun and have not ended, and repairs: what a barrier waits for. Set here only. */
  inFlight = 0
  readonly changes = new ChangeGate()
  readonly #recording: RecordGate
  readonly #metrics: Metrics
  /** What came while the volume stands still; undefined while it does not. */
  #held: HeldChange[] | undefined
  readonly #idle: (() => void)[] = []

  constructor(recording: RecordGate, metrics: Metrics) {
    this.#recording = recording
    this.#metrics = metrics
  }

  /** Nothing may begin. */
  get standsStill(): boolean {
    return this.#held !== undefined
  }

  /** To be called with every request. False: it may not begin now and is kept, for resume() or for whoever holds its range. */
  admit(io: Io, slab: Slab | undefined, start: number): boolean {
    if (this.#held !== undefined) {
      slab?.retain()
      this.#held.push({io, slab, start})
      return false
    }
    this.inFlight++
    return this.changes.admit(io, slab, start)
  }

  /** A part of a request, or a repair, begins, which nothing holds up. */
  entered(): void {
    this.inFlight++
  }

  /** A repair has ended. */
  left(): void {
    this.inFlight--
    this.#wakeIfIdle()
  }

  /** Ends a request that has begun, with 0 or an errno: its initiator is told, when the members know who they are. */
  done(io: Io, error: number): void {
    if (error === 0 && io.op !== OP.READ && this.#recording.keeps(io)) return
    this.changes.ended(io)
    this.inFlight--
    if (error === 0 && (io.op === OP.READ || io.op === OP.WRITE)) this.#metrics.count(io, reactor.time())
    io.onDone(error)
    this.#wakeIfIdle()
  }

  /** See Volume.pause(). */
  async pause(): Promise<void> {
    if (this.#held !== undefined) throw new Error('the volume stands still already')
    this.#held = []
    await this.drained()
  }

  /** Ends pause(): hands back what has waited since, in the order it came, to be submitted again. */
  resume(): readonly HeldChange[] {
    const held = this.#held ?? []
    this.#held = undefined
    return held
  }

  /** Resolves when nothing is in flight. */
  async drained(): Promise<void> {
    if (this.inFlight === 0) return
    await new Promise<void>(resolve => {
      this.#idle.push(resolve)
    })
  }

  #wakeIfIdle(): void {
    if (this.inFlight > 0 || this.#idle.length === 0) return
    for (const resolve of this.#idle.splice(0)) resolve()
  }
}
