import type {Slab} from '../lib/net/slab.js'
import {Io, OP} from '../protocol/block-device.js'

/** What one replica answers to a question of the engine's own: no initiator waits for it, and no other replica is asked instead. */
export abstract class DirectIo extends Io {
  constructor(offset: number, length: number) {
    super()
    this.op = OP.DIRECT
    this.offset = offset
    this.length = length
    this.startedAt = performance.now()
  }

  /** `error` is 0 or an errno with its `text`; the answer's payload stays as it is until the end of this turn. */
  abstract onAnswer(error: number, text: string, slab: Slab | undefined, start: number, bytes: number): void

  /** The connection has ended without an answer. */
  abstract onLost(reason: Error): void

  override onData(): void {
    throw new Error('what a replica is asked directly is answered with onAnswer()')
  }

  override onDone(): void {
    throw new Error('what a replica is asked directly is answered with onAnswer()')
  }
}
