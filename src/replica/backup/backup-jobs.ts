import {randomBytes} from 'node:crypto'
import type {StartedBackup} from '../../backup/create.js'
import {checkName} from '../../backup/target-url.js'
import {percentOf, type TransferProgress} from '../../backup/transfer-progress.js'
import {Cleanup} from '../../lib/cleanup.js'
import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {toText} from '../../protocol/grpc/fields.js'
import type {BackupCreateRequest} from '../../protocol/proto/generated/sync-agent.js'
import type {Replica} from '../replica.js'

/** How many statuses are remembered, newest first, as upstream's. */
const KEPT = {complete: 5, error: 10} as const

const NOTHING: TransferProgress = {blocks: 0, totalBlocks: 0, volumeBytes: 0, objectBytes: 0}

/** How far a backup is. The states are upstream's. */
export interface BackupStatus {
  readonly state: 'in_progress' | 'complete' | 'error'
  /** Percent; 100 not before it is listed. */
  readonly progress: number
  readonly url: string
  readonly error: string
  readonly snapshot: string
  readonly transfer: TransferProgress
}

interface Job {
  status: BackupStatus
  readonly abort: AbortController
  running: Promise<void>
}

/** The backups that this replica makes, and what has come of the last ones. They go on when whoever asked for them goes away. */
export class BackupJobs {
  readonly #jobs = new Map<string, Job>()

  constructor(
    readonly replica: Replica,
    readonly log: Log,
  ) {}

  /** Begins a backup. Resolves when the base is chosen; the rest goes on. Throws what startBackup() does, and BUSY during a purge. */
  async start(request: BackupCreateRequest, signal: AbortSignal): Promise<{backup: string; isIncremental: boolean}> {
    // Most replicas never make a backup, and need not have what it takes in memory.
    const {beginBackup} = await import('./begin-backup.js')
    const name = request.backupName === '' ? `backup-${randomBytes(8).toString('hex')}` : checkName(request.backupName, 'backup')
    const snapshot = toText(request.snapshotFileName, 'BackupCreate: snapshot_file_name')
    if (this.#jobs.get(name)?.status.state === 'in_progress') throw new LonghornError('BUSY', `backup ${name} is running already`)
    const job: Job = {status: {state: 'in_progress', progress: 0, url: '', error: '', snapshot, transfer: NOTHING}, abort: new AbortController(), running: Promise.resolve()}
    this.#jobs.set(name, job)
    try {
      await using undo = new Cleanup()
      undo.defer(this.replica.useLayers(`backup ${name}`))
      const onProgress = (transfer: TransferProgress): void => {
        job.status = {...job.status, transfer, progress: percentOf(transfer)}
      }
      const started = await beginBackup(this.replica.directory, request, {name, onProgress, signal: job.abort.signal}, undo)
      if (signal.aborted) {
        await started.close()
        throw signal.reason
      }
      this.log.info({backup: name, snapshot, to: started.to, incremental: started.isIncremental}, 'backup begins')
      job.running = this.#run(name, job, started, undo.move())
      return {backup: name, isIncremental: started.isIncremental}
    } catch (error) {
      this.#end(name, job, {...job.status, state: 'error', error: messageOf(error)})
      throw error
    }
  }

  /** NOT_FOUND for one that is not known, or not any more. */
  status(name: string): BackupStatus {
    const job = this.#jobs.get(name)
    if (job === undefined) throw new LonghornError('NOT_FOUND', `backup not found ${name}: this replica does not make it, or has been restarted`)
    return job.status
  }

  /** Ends a backup that runs, and forgets it. */
  async remove(name: string): Promise<void> {
    const job = this.#jobs.get(name)
    job?.abort.abort(new LonghornError('INTERRUPTED', 'the backup was cancelled'))
    await job?.running
    this.#jobs.delete(name)
  }

  /** Forgets what is over. */
  reset(): void {
    for (const [name, {status}] of this.#jobs) if (status.state !== 'in_progress') this.#jobs.delete(name)
  }

  /** Ends all of them, and waits for that. Safe twice. */
  async close(): Promise<void> {
    const reason = new LonghornError('INTERRUPTED', 'the replica is shutting down')
    for (const {abort} of this.#jobs.values()) abort.abort(reason)
    await Promise.all([...this.#jobs.values()].map(({running}) => running))
  }

  async #run(name: string, job: Job, started: StartedBackup, owned: Cleanup): Promise<void> {
    try {
      await using _owned = owned
      const {url, newBytes} = await started.run()
      this.log.info({backup: name, newBytes}, 'backup complete')
      job.status = {...job.status, url}
    } catch (error) {
      if (isKind(error, 'INTERRUPTED')) this.log.info({backup: name, reason: messageOf(error)}, 'backup ended early')
      else this.log.warn({err: error, backup: name}, 'backup failed')
      return this.#end(name, job, {...job.status, state: 'error', error: messageOf(error)})
    }
    this.#end(name, job, {...job.status, state: 'complete', progress: 100})
  }

  #end(name: string, job: Job, status: BackupStatus): void {
    job.status = status
    // Last in the map are the newest.
    this.#jobs.delete(name)
    this.#jobs.set(name, job)
    for (const state of ['complete', 'error'] as const) {
      const over = [...this.#jobs].filter(([, {status}]) => status.state === state)
      for (const [old] of over.slice(0, -KEPT[state])) this.#jobs.delete(old)
    }
  }
}
