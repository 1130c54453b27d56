import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import {Cleanup} from '../../lib/cleanup.js'
import type {Log} from '../../lib/log.js'
import {percentOf, type TransferProgress} from '../../backup/transfer-progress.js'
import type {BackupRestoreRequest} from '../../protocol/proto/generated/sync-agent.js'
import type {Replica} from '../replica.js'
import {unwrittenLayers} from './restore-record.js'
import type {RestorePlan} from './restore-plan.js'
import type * as RestoreSteps from './restore-steps.js'
import type {RestoreWish} from './restore-wish.js'

const NOTHING: TransferProgress = {blocks: 0, totalBlocks: 0, volumeBytes: 0, objectBytes: 0}

/** How far the last restore is. The states are upstream's. */
export interface RestoreStatus {
  readonly state: '' | 'in_progress' | 'complete' | 'error'
  /** Percent; 100 not before it is in its place. */
  readonly progress: number
  readonly error: string
  /** As it was asked for. */
  readonly url: string
  readonly backup: string
  /** File name. */
  readonly layer: string
  /** Fetched, and waiting for finish(). */
  readonly ready: boolean
  readonly incremental: boolean
  readonly transfer: TransferProgress
}

const NEVER: RestoreStatus = {state: '', progress: 0, error: '', url: '', backup: '', layer: '', ready: false, incremental: false, transfer: NOTHING}

interface Job {
  readonly steps: typeof RestoreSteps
  readonly wish: RestoreWish
  readonly abort: AbortController
  /** Until it is over, or waits to be finished. */
  running: Promise<void>
  /** What it holds as long as it is not over. */
  owned: Cleanup
  plan: RestorePlan | undefined
}

/**
 * The restore of a backup into this replica, one at a time. What is fetched goes to a file that is no layer yet, so that the volume stays what it was until
 * all of it is there, durably; then that becomes a layer and the replica goes on from it. It goes on when whoever asked goes away.
 */
export class RestoreJobs {
  #status = NEVER
  #job: Job | undefined

  constructor(
    readonly replica: Replica,
    readonly log: Log,
  ) {}

  /** One that a process before this one began, and did not finish, is an error. */
  get status(): RestoreStatus {
    const {begun} = this.replica.restores
    if (this.#status !== NEVER || begun === undefined) return this.#status
    const backup = nameOf(begun.backup)
    return {...NEVER, state: 'error', error: `the restore of ${backup} was interrupted: the replica has been restarted`, url: begun.backup, layer: begun.layer, backup}
  }

  get running(): boolean {
    return this.#job !== undefined
  }

  /** The name of the last backup that is complete here; '' when there is none any more. */
  async lastRestored(): Promise<string> {
    const {directory} = await this.replica.describe()
    return nameOf(this.replica.restores.restored(directory)?.backup ?? '')
  }

  /**
   * Begins. Resolves when the backup is found, fits, and it is recorded that the volume is to become this; the rest goes on. BUSY while there is one;
   * CONFLICT when the replica is not open, is being rebuilt, is too small, or has this very backup already; NOT_FOUND and others as openBackup().
   */
  async start(request: BackupRestoreRequest, signal: AbortSignal): Promise<void> {
    // Most replicas never restore anything, and need not have what it takes in memory.
    const steps = await import('./restore-steps.js')
    const wish = steps.toRestoreWish(request)
    // Of an engine that is gone: this one begins anew.
    if (wish.hold && this.#job !== undefined) await this.#stop('another restore was asked for')
    if (this.#job !== undefined) throw new LonghornError('BUSY', `the restore of backup ${this.#job.wish.backup} is already in progress`)
    const job: Job = {steps, wish, abort: new AbortController(), running: Promise.resolve(), owned: new Cleanup(), plan: undefined}
    this.#job = job
    this.replica.restores.running = true
    const begun = this.#admit(job).then(() => this.#begin(job, signal))
    job.running = begun.catch(() => undefined)
    await begun
  }

  /** Puts what is fetched in its place. CONFLICT when it is not fetched, or the replica belongs to another engine by now. */
  async finish(session: string, layer: string): Promise<void> {
    const job = this.#job
    if (job === undefined || !this.#status.ready || job.plan?.layer !== layer) throw new LonghornError('CONFLICT', `no restore to ${layer} waits to be finished in ${this.replica.directory}`)
    if (!this.replica.isOpenFor(session)) throw new LonghornError('CONFLICT', `the replica in ${this.replica.directory} belongs to another engine by now, or is closed`)
    this.#status = {...this.#status, ready: false}
    job.running = this.#commit(job, job.plan)
    await job.running
    if (this.#status.state === 'error') throw new LonghornError('IO', this.#status.error)
  }

  /** Ends a restore that runs, and forgets what was not finished: the volume is what it was before. CONFLICT when it is just being put in its place. */
  async cancel(): Promise<void> {
    if (this.#job !== undefined) await this.#stop('the restore was cancelled')
    await this.replica.restores.giveUp()
    if (this.#status.state === 'error') this.#status = NEVER
  }

  /** Forgets what has come of one that is over. */
  reset(): void {
    if (this.#job === undefined) this.#status = NEVER
  }

  /** Ends it, and waits for that. Safe twice. */
  async close(): Promise<void> {
    if (this.#job !== undefined) await this.#stop('the replica is shutting down')
  }

  /** A refusal leaves what is known of the last restore. Nobody else begins one meanwhile. */
  async #admit(job: Job): Promise<void> {
    try {
      if (!job.wish.hold) await this.#refuseRestored(job.wish)
    } catch (error) {
      this.#job = undefined
      this.replica.restores.running = false
      throw error
    }
  }

  async #refuseRestored({backup, recorded}: RestoreWish): Promise<void> {
    const {volume, directory} = await this.replica.describe()
    const restored = this.replica.restores.restored(directory)
    if (volume === undefined || restored?.backup !== recorded) return
    if (this.replica.restores.begun === undefined && unwrittenLayers(volume).includes(restored.layer)) throw new LonghornError('CONFLICT', `already restored backup ${backup}`)
  }

  async #begin(job: Job, signal: AbortSignal): Promise<void> {
    const {wish, steps} = job
    this.#status = {...NEVER, state: 'in_progress', url: wish.url, backup: wish.backup, layer: wish.layer}
    try {
      await this.replica.breakOffPurge('a backup is to be restored')
      job.owned.defer(this.replica.useLayers(`the restore of backup ${wish.backup}`))
      const plan = await steps.planRestore(this.replica, wish, job.owned, job.abort.signal)
      signal.throwIfAborted()
      job.abort.signal.throwIfAborted()
      await this.replica.restores.begin({backup: wish.recorded, layer: plan.layer})
      this.#status = {...this.#status, incremental: plan.parent !== ''}
      this.log.info({backup: wish.backup, layer: plan.layer, incremental: plan.parent !== ''}, 'restore begins')
      job.plan = plan
      job.running = this.#run(job, plan)
    } catch (error) {
      await this.#end(job, {state: 'error', error: messageOf(error)})
      throw error
    }
  }

  async #run(job: Job, plan: RestorePlan): Promise<void> {
    try {
      await plan.fetch(job.abort.signal, transfer => {
        this.#status = {...this.#status, transfer, progress: percentOf(transfer)}
      })
      if (job.wish.hold) {
        this.#status = {...this.#status, progress: 99, ready: true}
        this.log.info({backup: job.wish.backup}, 'all of the backup is here')
        return
      }
    } catch (error) {
      return this.#failed(job, error)
    }
    await this.#commit(job, plan)
  }

  async #commit(job: Job, plan: RestorePlan): Promise<void> {
    try {
      await job.steps.putInPlace(this.replica, plan)
    } catch (error) {
      return this.#failed(job, error)
    }
    this.log.info({backup: job.wish.backup, layer: plan.layer, incremental: plan.parent !== ''}, 'restored')
    await this.#release(job)
    if (!job.wish.hold) await this.#tidyUp(job, plan)
    await this.#end(job, {state: 'complete', progress: 100})
    // Space can wait.
    if (job.wish.hold) await this.replica.purge().catch((error: unknown) => this.log.info({reason: messageOf(error)}, 'no purge after the restore'))
  }

  /** The backup is in its place, whatever comes of this. */
  async #tidyUp({steps, wish, abort}: Job, plan: RestorePlan): Promise<void> {
    try {
      const layer = await steps.tidyUp(this.replica, plan, wish.layer, abort.signal)
      if (layer !== wish.layer) this.log.warn({layer, wanted: wish.layer}, 'the restored layer has another name')
    } catch (error) {
      this.log.warn({err: error}, 'after the restore')
    }
  }

  async #release({owned}: Job): Promise<void> {
    await owned.close().catch((error: unknown) => this.log.warn({err: error}, 'after a restore'))
  }

  async #failed(job: Job, error: unknown): Promise<void> {
    if (isKind(error, 'INTERRUPTED')) this.log.info({backup: job.wish.backup, reason: messageOf(error)}, 'restore ended early')
    else this.log.warn({err: error, backup: job.wish.backup}, 'restore failed')
    // The volume is still there, and writes to it would fail.
    if (isKind(error, 'NO_SPACE')) await this.replica.restores.dropFetched().catch((failure: unknown) => this.log.warn({err: failure}, 'after a restore'))
    await this.#end(job, {state: 'error', error: messageOf(error)})
  }

  async #end(job: Job, status: Partial<RestoreStatus>): Promise<void> {
    await this.#release(job)
    this.#status = {...this.#status, ready: false, ...status}
    this.#job = undefined
    this.replica.restores.running = false
  }

  async #stop(why: string): Promise<void> {
    const job = this.#job!
    const reason = new LonghornError('INTERRUPTED', why)
    job.abort.abort(reason)
    // Not from under one that is being put in its place.
    for (let running; running !== job.running; ) await (running = job.running)
    if (this.#job === job && this.#status.ready) await this.#end(job, {state: 'error', error: why})
  }
}

/** The name in the URL of a record. */
function nameOf(url: string): string {
  return /[?&]backup=([^&]*)/.exec(url)?.[1] ?? ''
}
