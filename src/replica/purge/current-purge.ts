import type {Log} from '../../lib/log.js'
import type {ReplicaVolume} from '../replica-volume.js'
import {Purge, type Exclusive, type PurgeStatus} from './purge.js'

/** The purge of one replica, which has one at a time, and what came of the last one. */
export class CurrentPurge {
  #purge: Purge | undefined

  constructor(readonly log: Log) {}

  get isRunning(): boolean {
    return this.status.state === 'in_progress'
  }

  /** Of the one that is running, or the last one since the process began. */
  get status(): PurgeStatus {
    return this.#purge?.status ?? {state: '', progress: 0, error: ''}
  }

  /** Begins one; none may be running. */
  start(volume: ReplicaVolume, exclusive: Exclusive): void {
    this.#purge = Purge.start(volume, exclusive, this.log)
  }

  /** Has it end, for what is worth more; see ended(). What it has not done the next one does. */
  breakOff(): void {
    this.#purge?.breakOff()
  }

  /** Resolves when none is running, in whatever way it ended. */
  async ended(): Promise<void> {
    await this.#purge?.ended()
  }

  /** Forgets what came of the last one, unless it is running. */
  forget(): void {
    if (!this.isRunning) this.#purge = undefined
  }
}
