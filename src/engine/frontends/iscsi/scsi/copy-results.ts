import type {Nexus} from '../scsi-task.js'

/** What became of one EXTENDED COPY. */
export interface CopyResult {
  readonly status: 'in progress' | 'good' | 'failed'
  readonly segments: number
  readonly bytes: number
}

/** How many results of one initiator are remembered: the last ones. */
const MOST_RESULTS = 16

/** What became of copies, by session and list identifier, for RECEIVE COPY RESULTS. */
export class CopyResults {
  /** Copies under way. */
  running = 0
  readonly #bySession = new Map<number, Map<number, CopyResult>>()

  get({id}: Nexus, listId: number): CopyResult | undefined {
    return this.#bySession.get(id)?.get(listId)
  }

  set({id}: Nexus, listId: number, result: CopyResult): void {
    const results = this.#bySession.get(id) ?? new Map<number, CopyResult>()
    this.#bySession.set(id, results)
    // The newest is last.
    results.delete(listId)
    results.set(listId, result)
    const oldest = [...results].find(([, {status}]) => status !== 'in progress')
    if (results.size > MOST_RESULTS && oldest !== undefined) results.delete(oldest[0])
  }

  nexusLost({id}: Nexus): void {
    this.#bySession.delete(id)
  }
}
