import {randomUUID} from 'node:crypto'
import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError, messageOf} from '../lib/errors.js'
import type {RestoreStatusResponse} from '../protocol/proto/generated/sync-agent.js'
import {isUnavailable} from './replica-control.js'
import type {ReplicaLink} from './replica-link.js'
import {RestoreAgent} from './restore-agent.js'
import type {Members} from './snapshots.js'

export interface RestoreRequest {
  /** URL of the backup. */
  readonly backup: string
  readonly credential: ReadonlyMap<string, string>
  /** Blocks at once, of each replica. */
  readonly concurrency: number
}

/** What the volume holds already: the backup (URL), and the layer (a file name) above which nothing was written. */
export interface RestoreBase {
  readonly backup: string
  readonly layer: string
}

export interface RestoreHost extends Members {
  readonly session: string
  /** Steps that change what the replicas are happen one after the other. */
  inTurn<T>(step: () => Promise<T>): Promise<T>
}

/** How far one replica is. */
export interface ReplicaRestoreInfo {
  readonly address: string
  readonly state: 'in_progress' | 'complete' | 'error'
  readonly error: string
  /** Percent. */
  readonly progress: number
  readonly blocks: number
  readonly totalBlocks: number
  readonly volumeBytes: number
  readonly objectBytes: number
}

export interface RestoreInfo {
  readonly state: 'in_progress' | 'complete' | 'error'
  readonly backup: string
  readonly error: string
  readonly incremental: boolean
  readonly replicas: readonly ReplicaRestoreInfo[]
}

interface Part {
  readonly link: ReplicaLink
  readonly agent: RestoreAgent
  info: ReplicaRestoreInfo
  ready: boolean
  /** Since when it has not answered. */
  silentSince: number | undefined
}

const POLL_MS = 200
/** A replica that does not answer for this long has failed, also when its data connection is there still. */
const SILENCE_MS = 30_000

/**
 * One backup on its way into all replicas. Each fetches it by itself, beside the volume; when all have it, those that have it put it in its place, at one moment of the engine, and those
 * that failed are dropped before that. So the volume is what it was, or the backup, and a replica that may be neither does not count.
 */
export class Restore {
  readonly #host: RestoreHost
  readonly #parts: readonly Part[]
  readonly #layer = `volume-snap-restore-${randomUUID()}.img`
  readonly #stop = new AbortController()
  #info: Omit<RestoreInfo, 'replicas'>
  #ended: Promise<void> = Promise.resolve()

  constructor(
    host: RestoreHost,
    readonly request: RestoreRequest,
    base: RestoreBase | undefined,
  ) {
    this.#host = host
    this.#info = {state: 'in_progress', backup: request.backup, error: '', incremental: base !== undefined}
    this.#parts = host.volume.readers.map(link => ({link, agent: new RestoreAgent(link.address, host.volume.name), info: beginning(link.address), ready: false, silentSince: undefined}))
  }

  /** One of a backup that the volume holds already. */
  static complete(host: RestoreHost, request: RestoreRequest): Restore {
    const restore = new Restore(host, request, undefined)
    for (const part of restore.#parts) part.info = {...part.info, state: 'complete', progress: 100}
    restore.#info = {...restore.#info, state: 'complete', incremental: true}
    restore.#dispose()
    return restore
  }

  get info(): RestoreInfo {
    return {...this.#info, replicas: this.#parts.map(({info}) => info)}
  }

  /**
   * Resolves when the replicas have begun; the rest goes on in the background. When one of them refuses it rejects with that reason, and nothing has changed.
   * A replica that does not answer is dropped at the end.
   */
  async begin(base: RestoreBase | undefined): Promise<void> {
    const {backup, credential, concurrency} = this.request
    const request = {
      backup,
      snapshotDiskName: this.#layer,
      credential: new Map(credential),
      concurrentLimit: concurrency,
      hold: true,
      baseBackup: base?.backup ?? '',
      baseLayer: base?.layer ?? '',
    }
    const results = await Promise.allSettled(this.#parts.map(({agent}) => agent.begin(request)))
    const refused = results.flatMap(result => (result.status === 'rejected' ? [result.reason as Error] : []))
    const refusal = refused.find(reason => !isUnavailable(reason)) ?? (refused.length === results.length ? refused[0] : undefined)
    if (refusal !== undefined) {
      await Promise.allSettled(this.#parts.filter((_, index) => results[index]!.status === 'fulfilled').map(({agent}) => agent.cancel()))
      this.#end(messageOf(refusal))
      this.#dispose()
      throw refusal
    }
    for (const [index, result] of results.entries()) if (result.status === 'rejected') fail(this.#parts[index]!, result.reason)
    this.#host.log.info({backup, replicas: this.#left.map(({link}) => link.address), base: base?.backup}, 'restore begun')
    this.#ended = this.#run()
  }

  /** Ends it, also on the replicas, which forget it. Not one that is being put in its place. */
  async cancel(): Promise<void> {
    this.#stop.abort(new LonghornError('INTERRUPTED', 'the restore was cancelled'))
    await this.#ended
  }

  /** The engine ends: the replicas go on fetching, and another engine may ask for it again. */
  async stop(): Promise<void> {
    this.#stop.abort(new LonghornError('INTERRUPTED', 'the engine was stopped'))
    await this.#ended
  }

  get #left(): Part[] {
    return this.#parts.filter(({info}) => info.state === 'in_progress')
  }

  async #run(): Promise<void> {
    try {
      while (this.#left.some(({ready}) => !ready)) {
        await Promise.all(this.#left.filter(({ready}) => !ready).map(part => this.#look(part)))
        await sleep(POLL_MS, undefined, {signal: this.#stop.signal}).catch(() => undefined)
        this.#stop.signal.throwIfAborted()
      }
      await this.#host.inTurn(() => this.#commit())
      this.#info = {...this.#info, state: 'complete'}
      this.#host.log.info({backup: this.request.backup}, 'restored')
    } catch (error) {
      this.#host.log.error({backup: this.request.backup, reason: messageOf(error)}, 'restore failed')
      this.#end(messageOf(error))
    } finally {
      this.#dispose()
    }
  }

  #dispose(): void {
    for (const {agent} of this.#parts) agent[Symbol.dispose]()
  }

  async #look(part: Part): Promise<void> {
    const {link, agent} = part
    try {
      const status = await agent.status()
      part.silentSince = undefined
      part.ready = status.ready
      // The replica may have found that the base is gone from the store.
      this.#info = {...this.#info, incremental: status.incremental}
      if (status.state === 'in_progress') part.info = {...part.info, ...progressOf(status)}
      else fail(part, new LonghornError('IO', status.error === '' ? `its restore is "${status.state}"` : status.error))
    } catch (error) {
      part.silentSince ??= performance.now()
      if (performance.now() - part.silentSince >= SILENCE_MS) fail(part, error)
    }
    if (link.mode === 'ERR') fail(part, link.failure ?? new LonghornError('IO', 'the replica was dropped'))
  }

  async #commit(): Promise<void> {
    const {volume, session} = this.#host
    for (const part of this.#left) if (part.link.mode !== 'RW') fail(part, part.link.failure ?? new LonghornError('IO', 'the replica was dropped'))
    const parts = this.#left
    if (parts.length === 0) throw new LonghornError('IO', this.#reasons())
    await volume.drained()
    // What the others have from now on these have not. That is recorded before.
    for (const {link, info} of this.#parts) if (info.state === 'error') volume.fail(link, new LonghornError('IO', `replica ${link.address}: restore: ${info.error}`))
    await volume.recorded()
    const results = await Promise.allSettled(parts.map(({agent}) => agent.finish(session, this.#layer)))
    for (const [index, part] of parts.entries()) {
      const result = results[index]!
      if (result.status === 'rejected') fail(part, result.reason)
      else part.info = {...part.info, state: 'complete', progress: 100}
    }
    // Where those that are out differ nobody has kept account of.
    volume.forgetMissed()
    if (parts.every(({info}) => info.state === 'error')) throw new LonghornError('IO', this.#reasons())
    for (const {link, info} of parts) if (info.state === 'error') volume.fail(link, new LonghornError('IO', `replica ${link.address}: restore: ${info.error}`))
    await volume.recorded()
  }

  #end(error: string): void {
    for (const part of this.#left) part.info = {...part.info, state: 'error', error}
    this.#info = {...this.#info, state: 'error', error}
  }

  #reasons(): string {
    return this.#parts.map(({link, info}) => `replica ${link.address}: ${info.error}`).join('; ')
  }
}

function fail(part: Part, reason: unknown): void {
  if (part.info.state === 'error') return
  part.info = {...part.info, state: 'error', error: messageOf(reason)}
}

function beginning(address: string): ReplicaRestoreInfo {
  return {address, state: 'in_progress', error: '', progress: 0, blocks: 0, totalBlocks: 0, volumeBytes: 0, objectBytes: 0}
}

function progressOf({progress, blocks, totalBlocks, volumeBytes, objectBytes}: RestoreStatusResponse): Partial<ReplicaRestoreInfo> {
  return {progress, blocks: Number(blocks), totalBlocks: Number(totalBlocks), volumeBytes: Number(volumeBytes), objectBytes: Number(objectBytes)}
}
