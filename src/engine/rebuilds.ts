import {LonghornError, messageOf} from '../lib/errors.js'
import {Rebuild, type RebuildHost, type RebuildInfo, type RebuildOptions} from './rebuild.js'
import type {ReplicaSet, ReplicaStatus} from './replica-set.js'
import {pushSettings, type VolumeSettings} from './volume-settings.js'

/** What the rebuilds of a volume work with. */
export interface RebuildsHost extends RebuildHost {
  readonly replicas: ReplicaSet
  readonly settings: VolumeSettings
  /** Throws CONFLICT when the engine is shutting down. */
  checkOpen(): void
}

/** The rebuilds of one volume: the last one of each replica. One that loses its source goes on with another. */
export class Rebuilds {
  readonly #host: RebuildsHost
  /** By the address of the replica. */
  readonly #last = new Map<string, Rebuild>()

  constructor(host: RebuildsHost) {
    this.#host = host
  }

  get infos(): readonly RebuildInfo[] {
    return [...this.#last.values()].map(rebuild => rebuild.info)
  }

  /** See Engine.addReplica(). `avoid`: replicas that are not to be copied from. */
  async add(address: string, bytesPerSecond: number, avoid: ReadonlySet<string> = new Set()): Promise<ReplicaStatus> {
    const {volume, replicas} = this.#host
    this.#host.checkOpen()
    this.#host.checkIdle()
    const present = replicas.link(address)
    if (present !== undefined && present.mode !== 'ERR') return replicas.status(address)
    const before = this.#last.get(address)
    if (before?.info.state === 'in_progress' && !before.dropped) throw new LonghornError('BUSY', `replica ${address} is being taken in already`)
    await before?.ended()
    if (present !== undefined) volume.removeReplica(present, new LonghornError('CONFLICT', 'it is being added again'))
    replicas.add(address)
    await this.#begin(address, {bytesPerSecond, resync: false, avoid})
    return replicas.status(address)
  }

  /** One that was in use at a crash: it takes part from the beginning, or not at all. */
  async resync(address: string): Promise<void> {
    try {
      await this.#begin(address, {bytesPerSecond: 0, resync: true})
    } catch (error) {
      this.#host.replicas.reject(address, error as LonghornError)
    }
  }

  /** One that lacks data when the engine starts: nobody waits for it. */
  beginInBackground(address: string): void {
    this.#begin(address, {bytesPerSecond: 0, resync: false}).catch((error: unknown) => {
      this.#host.log.error({replica: address, reason: messageOf(error)}, 'this replica lacks data and could not be taken in')
    })
  }

  /** See Engine.rebuilt(). */
  async ended(address: string, signal: AbortSignal): Promise<ReplicaStatus> {
    const {replicas} = this.#host
    replicas.find(address)
    const rebuild = this.#last.get(address)
    await Promise.race([rebuild?.ended(), aborted(signal)])
    signal.throwIfAborted()
    const status = replicas.find(address)
    if (status.mode === 'RW') return status
    throw new LonghornError('IO', `replica ${address} could not be rebuilt: ${rebuild?.info.error ?? status.reason ?? 'it is not being rebuilt'}`)
  }

  /** The engine ends. */
  stop(): void {
    for (const rebuild of this.#last.values()) rebuild.stop()
  }

  /** Resolves when all have ended. */
  async allEnded(): Promise<void> {
    await Promise.all([...this.#last.values()].map(rebuild => rebuild.ended()))
  }

  /** Resolves when the replica takes part in writes. Errors as those of Rebuild.join(). */
  async #begin(address: string, options: RebuildOptions): Promise<void> {
    const {replicas, settings} = this.#host
    const rebuild = new Rebuild(this.#host, replicas.control(address), options)
    this.#last.set(address, rebuild)
    await rebuild.join()
    void rebuild.ended().then(() => this.#tryAgain(rebuild, address, options))
    replicas.accept(address)
    const link = replicas.link(address)
    if (link !== undefined) await pushSettings(this.#host, link, settings)
  }

  async #tryAgain(rebuild: Rebuild, address: string, {bytesPerSecond, avoid: before = new Set()}: RebuildOptions): Promise<void> {
    const {volume, replicas, log} = this.#host
    if (rebuild.lostSource === undefined || !replicas.has(address)) return
    const avoid = new Set([...before, rebuild.lostSource])
    if (!volume.readers.some(link => link.canRebuild && !avoid.has(link.address))) return
    log.info({replica: address}, 'the rebuild goes on with another source')
    await this.add(address, bytesPerSecond, avoid).catch((error: unknown) => {
      log.error({replica: address, reason: messageOf(error)}, 'the rebuild could not go on with another source')
    })
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    signal.addEventListener('abort', () => resolve(), {once: true})
  })
}
