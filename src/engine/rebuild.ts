import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError, messageOf} from '../lib/errors.js'
import type {DiskInfo} from '../protocol/proto/generated/replica.js'
import {isRebuildSnapshot, newRebuildSnapshot} from '../protocol/rebuild-snapshot.js'
import type {RegionSet} from './changed-regions.js'
import type {MemberLog} from './membership.js'
import {connectLink} from './open-link.js'
import type {ReplicaControl} from './replica-control.js'
import type {ReplicaLink} from './replica-link.js'
import {takeSnapshot, type Members} from './snapshots.js'

/** What a rebuild works with. */
export interface RebuildHost extends Members {
  readonly session: string
  readonly replicaTimeoutMs: number
  readonly members: MemberLog
  /** Steps that change what the replicas are happen one after the other. */
  inTurn<T>(step: () => Promise<T>): Promise<T>
  /** Throws while no replica can be taken in. */
  checkIdle(): void
}

export interface RebuildOptions {
  /** At most this many bytes a second; 0: as many as leave time to others. */
  readonly bytesPerSecond: number
  /** It has everything that was flushed; see Choice.resync. It takes part as a member from the beginning. */
  readonly resync: boolean
  /** Addresses of replicas that could not be copied from. */
  readonly avoid?: ReadonlySet<string>
}

/** How far a rebuild is. */
export interface RebuildInfo {
  readonly address: string
  readonly sources: readonly string[]
  readonly state: 'in_progress' | 'complete' | 'error'
  readonly error: string
  /** Bytes compared or copied, of how many, and those that came over the network. */
  readonly done: number
  readonly total: number
  readonly copied: number
  readonly elapsedMs: number
  readonly resync: boolean
}

/** How long to wait before asking again how far a rebuild is: a part of what it has taken by now, within limits. */
const POLL_PART = 0.05
const LEAST_POLL_MS = 5
const MOST_POLL_MS = 200

/**
 * One replica on its way to being the same as the others. It joins at a snapshot: from that moment it gets every write, on top of layers
 * that do not change any more and that it fetches itself. When it has them all it is compared with the others, recorded as a
 * member, and read from.
 */
export class Rebuild {
  readonly #host: RebuildHost
  readonly #control: ReplicaControl
  readonly #options: RebuildOptions
  readonly #startedAt = performance.now()
  #snapshot = ''
  #link: ReplicaLink | undefined
  #sources: readonly ReplicaLink[] = []
  #failedSource = ''
  #info: RebuildInfo
  readonly #ended: Promise<void>
  #end: () => void = () => undefined
  readonly #stop = new AbortController()

  constructor(host: RebuildHost, control: ReplicaControl, options: RebuildOptions) {
    this.#host = host
    this.#control = control
    this.#options = options
    this.#ended = new Promise(resolve => {
      this.#end = resolve
    })
    this.#info = {address: control.address, sources: [], state: 'in_progress', error: '', done: 0, total: 0, copied: 0, elapsedMs: 0, resync: options.resync}
  }

  get info(): RebuildInfo {
    if (this.#info.state !== 'in_progress') return this.#info
    return {...this.#info, elapsedMs: performance.now() - this.#startedAt}
  }

  /**
   * Resolves when the replica takes part in writes; the rest goes on in the background. Rejects, with the replica left out, when it
   * cannot join: CONFLICT for one that is too large, UNSUPPORTED for one of upstream, NO_DATA without a source.
   */
  async join(): Promise<void> {
    try {
      await this.#host.inTurn(() => this.#join())
    } catch (error) {
      await this.#fail(error)
      this.#end()
      throw error
    }
    void this.#finishLater().finally(() => this.#end())
  }

  /** The engine ends, and so does this: another engine begins it again. */
  stop(): void {
    this.#stop.abort()
  }

  /** The replica was dropped meanwhile: this is about to end. */
  get dropped(): boolean {
    return this.#link?.mode === 'ERR'
  }

  /** It failed because the replica with this address could not be copied from: the others will do. */
  get lostSource(): string | undefined {
    if (this.#info.state !== 'error' || this.#stop.signal.aborted) return undefined
    return this.#failedSource === '' ? this.#sources.find(({mode}) => mode === 'ERR')?.address : this.#failedSource
  }

  /** Resolves when it has ended, in whatever way. */
  ended(): Promise<void> {
    return this.#ended
  }

  async #join(): Promise<void> {
    const {volume, session} = this.#host
    // A restore may have begun since it was asked for.
    this.#host.checkIdle()
    const facts = await this.#control.inspect()
    // What was in use at a crash counts as a member, and is one before anything changes.
    if (!this.#options.resync) await volume.recorded()
    const source = volume.readers.find(link => this.#canBeSource(link))
    if (source === undefined) throw new LonghornError('NO_DATA', 'no replica of the volume can be copied from: those of upstream are no sources for this engine')
    if (facts.features.length === 0) {
      throw new LonghornError('UNSUPPORTED', `replica ${this.#control.address} is one of upstream: this engine uses such replicas, and cannot rebuild them`)
    }
    // One that was being rebuilt and is not complete holds nothing that others do not: an expansion may have come to its end there only.
    if (facts.sizeBytes > volume.sizeBytes && !facts.rebuilding) {
      throw new LonghornError('CONFLICT', `replica ${this.#control.address} has ${facts.sizeBytes} bytes, more than the volume with ${volume.sizeBytes}: it belongs to another volume`)
    }
    this.#host.members.checkSameVolume(this.#control.address, facts.membership)
    const {layers, parent} = await this.#host.control(source).layers()
    const request = {name: newRebuildSnapshot(), userCreated: false, created: now(), labels: {}}
    this.#snapshot = `volume-snap-${request.name}.img`
    const joined = await this.#control.join({
      session,
      size: BigInt(volume.sizeBytes),
      snapshot: request.name,
      created: request.created,
      layers: [...layers, description(this.#snapshot, parent, request.created, volume.sizeBytes)],
      resync: this.#options.resync,
      related: isRelated(facts.membership, facts.id),
    })
    const link = await connectLink({...this.#host, control: this.#control}, joined, volume.nextBit())
    this.#link = link
    link.mode = 'WO'
    await this.#host.members.tell(this.#control)
    link.member = this.#options.resync
    let missed: RegionSet | undefined
    await takeSnapshot(this.#host, request, () => {
      missed = volume.takeMissed(link.name)
      volume.addReplica(link)
    })
    const below = await this.#host.control(source).layers()
    this.#sources = [source, ...(await this.#alike(source, below.layers))]
    this.#checkSources()
    const from = this.#sources.map(({address}) => address)
    await this.#control.rebuild({
      session,
      sources: from,
      layers: below.layers,
      bytesPerSecond: BigInt(this.#options.bytesPerSecond),
      changed: missed?.toBits() ?? Buffer.alloc(0),
    })
    this.#info = {...this.#info, sources: from}
    this.#host.log.info({replica: link.address, sources: from, resync: this.#options.resync}, 'rebuild begun')
  }

  #canBeSource(link: ReplicaLink): boolean {
    return link.canRebuild && this.#options.avoid?.has(link.address) !== true
  }

  /** Other replicas with the same layers. Purges come to each at another time. */
  async #alike(source: ReplicaLink, layers: readonly DiskInfo[]): Promise<ReplicaLink[]> {
    const wanted = chainText(layers)
    const others = this.#host.volume.readers.filter(link => link !== source && this.#canBeSource(link))
    const found = await Promise.allSettled(others.map(async link => (await this.#host.control(link).layers()).layers))
    return others.filter((_, index) => {
      const result = found[index]!
      return result.status === 'fulfilled' && chainText(result.value) === wanted
    })
  }

  #checkSources(): void {
    const lost = this.#sources.find(({mode}) => mode !== 'RW')
    if (lost !== undefined) throw lost.failure ?? new LonghornError('NO_DATA', `replica ${lost.address}, which is copied, was dropped`)
  }

  async #finishLater(): Promise<void> {
    try {
      await this.#wait()
      await this.#host.inTurn(() => this.#finish())
      this.#info = {...this.info, state: 'complete', done: this.#info.total}
      this.#host.log.info({...this.#info}, 'rebuild complete')
      await this.#cleanUp()
    } catch (error) {
      await this.#fail(error)
    }
  }

  /** Until the replica has all layers. */
  async #wait(): Promise<void> {
    const begun = performance.now()
    for (;;) {
      if (this.#stop.signal.aborted) throw new LonghornError('INTERRUPTED', 'the engine was stopped')
      if (this.#link!.mode === 'ERR') throw this.#link!.failure ?? new LonghornError('IO', 'the replica was dropped')
      const {state, error, done, total, copied, failedSource} = await this.#control.rebuildProgress()
      this.#failedSource = failedSource
      this.#info = {...this.#info, done: Number(done), total: Number(total), copied: Number(copied)}
      if (state === 'complete') return
      if (state !== 'in_progress') throw new LonghornError('IO', error === '' ? `the rebuild is "${state}"` : error)
      const pollMs = Math.max(LEAST_POLL_MS, Math.min(MOST_POLL_MS, POLL_PART * (performance.now() - begun)))
      // A stop is looked at at once.
      await sleep(pollMs, undefined, {signal: this.#stop.signal}).catch(() => undefined)
    }
  }

  async #finish(): Promise<void> {
    const link = this.#link!
    const {volume, session, members, control} = this.#host
    this.#checkSources()
    await this.#control.finishRebuild(session, (await control(this.#sources[0]!).layers()).layers)
    if (link.mode === 'ERR') throw link.failure ?? new LonghornError('IO', 'the replica was dropped')
    link.member = true
    // Before it is read: a replica that was read is one that counts.
    await members.record()
    if (link.failure !== undefined) throw link.failure
    volume.promote(link)
  }

  /** The snapshot that it joined at is of no use any more; nor are those that engines which ended in the middle have left, when nothing is being rebuilt. */
  async #cleanUp(): Promise<void> {
    const {volume} = this.#host
    const left = volume.members.every(({mode}) => mode === 'RW') ? await this.#leftSnapshots() : []
    const unused = [...new Set([this.#snapshot, ...left])]
    const results = await Promise.allSettled(volume.members.flatMap(link => unused.map(snapshot => this.#host.control(link).markRemoved(snapshot))))
    for (const result of results) {
      if (result.status === 'rejected') this.#host.log.warn({snapshots: unused, reason: messageOf(result.reason)}, 'the snapshot of a rebuild could not be marked as removed')
    }
    // While another replica is being rebuilt this is refused; the next one gives back the space of both.
    const purges = await Promise.allSettled(this.#host.volume.readers.filter(link => link.canRebuild).map(link => this.#host.control(link).purge()))
    for (const purge of purges) if (purge.status === 'rejected') this.#host.log.debug({reason: messageOf(purge.reason)}, 'a replica does not purge now')
  }

  async #leftSnapshots(): Promise<string[]> {
    const able = this.#host.volume.readers.find(link => link.canRebuild)
    if (able === undefined) return []
    try {
      const {layers} = await this.#host.control(able).layers()
      return layers.filter(({name, removed}) => isRebuildSnapshot(name) && !removed).map(({name}) => name)
    } catch (error) {
      this.#host.log.warn({reason: messageOf(error)}, 'the snapshots that earlier rebuilds have left are not known')
      return []
    }
  }

  async #fail(error: unknown): Promise<void> {
    const reason = error instanceof LonghornError ? error : new LonghornError('IO', messageOf(error), {}, {cause: error})
    this.#info = {...this.info, state: 'error', error: reason.message}
    if (this.#stop.signal.aborted) return
    this.#host.log.error({replica: this.#control.address, reason: reason.message}, 'rebuild failed')
    if (this.#link !== undefined) this.#host.volume.fail(this.#link, reason)
    // It has nothing to tell: what it is, is in its directory.
    await this.#control.close().catch(() => undefined)
    if (this.#snapshot !== '' && this.#link !== undefined) await this.#cleanUp()
  }
}

/** What layers are alike by. */
function chainText(layers: readonly DiskInfo[]): string {
  return JSON.stringify(layers.map(({name, parent, created, removed, lengthBytes}) => [name, parent, created, removed, String(lengthBytes)]).sort())
}

/** A record of its own says that it was a member once. */
function isRelated(membership: {readonly members: readonly string[]} | undefined, id: string): boolean {
  return membership !== undefined && membership.members.includes(id)
}

function description(name: string, parent: string, created: string, sizeBytes: number): DiskInfo {
  return {name, parent, created, removed: false, userCreated: false, children: new Map(), size: '0', labels: new Map(), lengthBytes: BigInt(sizeBytes)}
}

/** RFC 3339, UTC, whole seconds. */
function now(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, 'Z')
}
