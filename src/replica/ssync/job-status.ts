import {LonghornError, messageOf} from '../../lib/errors.js'

/** How far something is that one replica does one at a time. The states are upstream's. */
export interface JobStatus {
  readonly state: '' | 'in_progress' | 'complete' | 'error'
  /** Percent. */
  readonly progress: number
  readonly error: string
}

const NEVER: JobStatus = {state: '', progress: 0, error: ''}

/** One job at a time, and what has come of the last one. */
export class Job {
  #status = NEVER

  /** `what` the replica is while it runs: `rebuilding`. */
  constructor(readonly what: string) {}

  get status(): JobStatus {
    return this.#status
  }

  get running(): boolean {
    return this.#status.state === 'in_progress'
  }

  /** Throws BUSY while one is running. */
  async run<T>(work: (progress: (percent: number) => void) => Promise<T>): Promise<T> {
    if (this.running) throw new LonghornError('BUSY', `the replica is already ${this.what}`)
    this.#status = {state: 'in_progress', progress: 0, error: ''}
    try {
      const result = await work(progress => (this.#status = {...this.#status, progress}))
      this.#status = {state: 'complete', progress: 100, error: ''}
      return result
    } catch (error) {
      this.#status = {...this.#status, state: 'error', error: messageOf(error)}
      throw error
    }
  }

  /** Forgets the last one, unless it is running. */
  reset(): void {
    if (!this.running) this.#status = NEVER
  }
}
