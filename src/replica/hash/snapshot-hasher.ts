import {LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {realDisk} from '../disk-steps.js'
import {snapshotFile} from '../layer-names.js'
import {Pace} from '../purge/copy-data.js'
import {layerChangeTime, readChecksum, writeChecksum, type RecordedChecksum} from './checksum-file.js'
import {HashLock} from './hash-lock.js'
import {layerChecksum} from './layer-checksum.js'

/** How far the hashing of a snapshot is. The states are upstream's. */
export interface HashStatus {
  readonly state: '' | 'in_progress' | 'complete' | 'error'
  readonly checksum: string
  readonly error: string
  readonly silentlyCorrupted: boolean
}

interface Job {
  status: HashStatus
  readonly abort: AbortController
}

/** The share of the time that reading may take: the volume is being used meanwhile. */
const SHARE = 0.5
const MOST_REMEMBERED = 1000

/** Records the checksums of a replica's snapshots, one at a time, while it is used or closed. */
export class SnapshotHasher {
  readonly #directory: string
  readonly #log: Log
  readonly #lock = new HashLock()
  readonly #jobs = new Map<string, Job>()
  #running: Promise<void> = Promise.resolve()

  constructor(directory: string, log: Log) {
    this.#directory = directory
    this.#log = log
  }

  /**
   * Begins to hash a snapshot. One whose checksum is recorded and whose file has not changed since is not read, unless with `again`.
   * NOT_FOUND when there is no such snapshot, BUSY when another one is being hashed on this node, USAGE for a name that cannot be one.
   */
  async start(name: string, again: boolean): Promise<void> {
    const layer = snapshotFile(name)
    await this.#changeTime(layer, name)
    if (!this.#lock.take()) throw new LonghornError('BUSY', `cannot request hashing snapshot ${name}: another one is being hashed on this node`)
    const job: Job = {status: {state: 'in_progress', checksum: '', error: '', silentlyCorrupted: false}, abort: new AbortController()}
    this.#jobs.delete(name)
    this.#jobs.set(name, job)
    for (const old of this.#jobs.keys()) if (this.#jobs.size > MOST_REMEMBERED) this.#jobs.delete(old)
    this.#running = this.#run(layer, again, job)
      .then(
        ({checksum, silentlyCorrupted}) => {
          job.status = {state: 'complete', checksum, error: '', silentlyCorrupted}
          if (silentlyCorrupted) this.#log.error({snapshot: name}, 'the data of a snapshot is not what it was, and its file was not changed')
        },
        (error: unknown) => {
          job.status = {...job.status, state: 'error', error: messageOf(error)}
          this.#log.warn({snapshot: name, reason: messageOf(error)}, 'a snapshot was not hashed')
        },
      )
      .finally(() => this.#lock.give())
  }

  /** Of the last hashing, or what is recorded and still valid. NOT_FOUND when there is no such snapshot. */
  async status(name: string): Promise<HashStatus> {
    const layer = snapshotFile(name)
    const job = this.#jobs.get(name)
    if (job !== undefined) return job.status
    const [now, recorded] = [await this.#changeTime(layer, name), await readChecksum(this.#directory, layer)]
    if (recorded?.changeTime !== now) return {state: '', checksum: '', error: '', silentlyCorrupted: false}
    return {state: 'complete', checksum: recorded.checksum, error: '', silentlyCorrupted: recorded.silentlyCorrupted}
  }

  /** Breaks the hashing of a snapshot off. NOT_FOUND when it was never asked for. */
  cancel(name: string): void {
    const job = this.#jobs.get(name)
    if (job === undefined) throw new LonghornError('NOT_FOUND', `hashing of snapshot ${JSON.stringify(name.slice(0, 256))} not found`)
    job.abort.abort(new LonghornError('INTERRUPTED', 'the hashing was cancelled'))
  }

  /** Somebody on this node is hashing. */
  get locked(): boolean {
    return this.#lock.taken
  }

  /**
   * Whether a layer's file still has its recorded checksum; undefined when none is recorded or the file was changed since. Reads all of
   * it and records nothing. Throws Node's errors.
   */
  async verify(layer: string, signal: AbortSignal): Promise<boolean | undefined> {
    const before = await layerChangeTime(this.#directory, layer)
    const recorded = await readChecksum(this.#directory, layer)
    if (recorded?.changeTime !== before) return undefined
    const checksum = await layerChecksum(this.#directory, layer, new Pace(SHARE, signal))
    return (await layerChangeTime(this.#directory, layer)) === before ? checksum === recorded.checksum : undefined
  }

  /** Breaks off what is running and waits for its end. */
  async close(): Promise<void> {
    for (const {abort} of this.#jobs.values()) abort.abort(new LonghornError('INTERRUPTED', 'the replica is shutting down'))
    await this.#running
  }

  async #run(layer: string, again: boolean, {abort}: Job): Promise<RecordedChecksum> {
    const before = await layerChangeTime(this.#directory, layer)
    const recorded = await readChecksum(this.#directory, layer)
    const valid = recorded?.changeTime === before ? recorded : undefined
    if (valid !== undefined && !again) return valid
    const checksum = await layerChecksum(this.#directory, layer, new Pace(SHARE, abort.signal))
    if ((await layerChangeTime(this.#directory, layer)) !== before) throw new LonghornError('CONFLICT', `${layer} was changed while it was hashed; hash it again`)
    const hashed = {changeTime: before, lastHashedAt: new Date().toISOString().replace(/\.\d+Z$/, 'Z')}
    // Of a file that nobody changed the old checksum is the right one.
    const record = {...hashed, checksum: valid?.checksum ?? checksum, silentlyCorrupted: valid !== undefined && valid.checksum !== checksum}
    await writeChecksum(this.#directory, layer, record, realDisk)
    return record
  }

  async #changeTime(layer: string, name: string): Promise<string> {
    return layerChangeTime(this.#directory, layer).catch((error: unknown) => {
      throw new LonghornError('NOT_FOUND', `there is no snapshot ${JSON.stringify(name)}`, {}, {cause: error})
    })
  }
}
