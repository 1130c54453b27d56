import {messageOf} from '../../../../lib/errors.js'
import type {Log} from '../../../../lib/log.js'
import type {BlockDevice} from '../../../../protocol/block-device.js'
import {TRAIT, type Command} from './command-set.js'
import type {BlockIo} from './data/block-io.js'
import type {Obstacle} from './logical-unit.js'
import type {StateKeeper} from './reservations/state-keeper.js'
import {CONDITION} from './sense.js'

/** What is erased between two looks at the progress. */
const STEP_BYTES = 256 * 1024 * 1024

type State =
  | {readonly is: 'idle'}
  | {readonly is: 'running'; readonly doneBytes: number; readonly totalBytes: number}
  /** `leavable`: EXIT FAILURE MODE is enough to go on; else only another SANITIZE is. */
  | {readonly is: 'failed'; readonly leavable: boolean}

/**
 * SANITIZE BLOCK ERASE: makes the whole disk zeros and gives its space back, with nothing else going on. Snapshots are not
 * touched: they belong to whoever runs the volume, and no initiator can reach them or what they hold.
 *
 * Overwriting is not offered, because what is written goes to new places in files and says nothing about the old ones; nor
 * is crypto erase, as there is no key. An engine that ends in the middle finds out when it is started again, and then the
 * erasing counts as failed rather than as done.
 */
export class Sanitizer {
  #state: State

  constructor(
    readonly device: BlockDevice,
    readonly io: BlockIo,
    readonly keeper: StateKeeper,
    readonly log: Log,
  ) {
    this.#state = keeper.saved.sanitizing ? {is: 'failed', leavable: false} : {is: 'idle'}
  }

  /** Begins; what it resolves to is the end. `leavable`: AUSE. */
  async start(leavable: boolean): Promise<{readonly ended: Promise<void>}> {
    const before = this.#state
    this.#state = {is: 'running', doneBytes: 0, totalBytes: this.device.sizeBytes}
    try {
      await this.keeper.save({sanitizing: true})
    } catch (error) {
      this.#state = before
      throw error
    }
    return {ended: this.#erase(leavable)}
  }

  /** EXIT FAILURE MODE. False when only another SANITIZE helps. */
  async leave(): Promise<boolean> {
    if (this.#state.is !== 'failed') return true
    if (!this.#state.leavable) return false
    await this.keeper.save({sanitizing: false})
    this.#state = {is: 'idle'}
    return true
  }

  obstacle(command: Command<never>): Obstacle | undefined {
    switch (this.#state.is) {
      case 'idle':
        return undefined
      case 'running':
        return this.state()
      case 'failed':
        return (command.traits & TRAIT.AFTER_FAILED_SANITIZE) !== 0 ? undefined : this.state()
    }
  }

  /** For REQUEST SENSE. */
  state(): Obstacle {
    switch (this.#state.is) {
      case 'idle':
        return {condition: CONDITION.NO_SENSE, detail: {}}
      case 'running':
        return {condition: CONDITION.SANITIZE_IN_PROGRESS, detail: {progress: this.#state.doneBytes / this.#state.totalBytes}}
      case 'failed':
        return {condition: CONDITION.SANITIZE_FAILED, detail: {}}
    }
  }

  async #erase(leavable: boolean): Promise<void> {
    const {sizeBytes} = this.device
    try {
      // What is already with the device ends first. Nothing new gets there, nor data of commands that were accepted before.
      await this.io.alone(async () => {
        for (let offset = 0; offset < sizeBytes; offset += STEP_BYTES) {
          await this.io.zero(offset, Math.min(STEP_BYTES, sizeBytes - offset), {unmap: true, claimed: true})
          this.#state = {is: 'running', doneBytes: Math.min(sizeBytes, offset + STEP_BYTES), totalBytes: sizeBytes}
        }
        await this.io.flush({claimed: true})
      })
      await this.keeper.save({sanitizing: false})
      this.#state = {is: 'idle'}
    } catch (error) {
      this.log.error({err: error}, `sanitize failed: ${messageOf(error)}`)
      this.#state = {is: 'failed', leavable}
      throw error
    }
  }
}
