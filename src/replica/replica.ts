import {isKind, LonghornError} from '../lib/errors.js'
import {SnapshotHasher} from './hash/snapshot-hasher.js'
import {LayerScrubber} from './scrub/layer-scrubber.js'
import type {Log} from '../lib/log.js'
import {createReplica, makeReplicaDirectory} from './create-replica.js'
import type {ExportHello} from '../protocol/hello.js'
import type {DataServer, Export} from './data-server.js'
import {DirectoryLock} from './directory-lock.js'
import {readReplicaDirectory, readVolumeMeta, type ReplicaDirectory} from './layer-chain.js'
import {LayerUse} from './layer-use.js'
import {openReplica} from './open-replica.js'
import {ReplicaSession, sessionState, type Opener} from './replica-session.js'
import type {ReplicaVolume} from './replica-volume.js'
import {deleteReplicaFiles} from './disk-removal.js'
import {CurrentPurge} from './purge/current-purge.js'
import type {Exclusive, PurgeStatus} from './purge/purge.js'
import {realDisk} from './disk-steps.js'
import type {Membership, ReplicaRecord} from './membership.js'
import {finishRebuild} from './rebuild/finish.js'
import {joinDirectory, type JoinRequest} from './rebuild/join.js'
import type {LayerDescription} from './rebuild/layer-description.js'
import {openExport} from './rebuild/layer-export.js'
import {openJoining} from './rebuild/open-joining.js'
import {Rebuild, type RebuildRequest, type RebuildStatus} from './rebuild/rebuild.js'
import {RecentChange} from './recent-change.js'
import {RecordKeeper} from './record-keeper.js'
import {RestoreKeeper} from './backup/restore-record.js'
import {ReplicaSettings} from './replica-settings.js'
import {revertDirectory} from './revert.js'
import {expansionSpec, type SnapshotSpec} from './snapshot.js'
import {SnapshotMarker} from './snapshot-marker.js'

/** Upstream's names for what a replica is doing; engines look at them. */
export type ReplicaState = 'initial' | 'closed' | 'open' | 'dirty' | 'rebuilding' | 'error'

export interface ReplicaDescription {
  readonly state: ReplicaState
  /** Undefined in states `initial` and `error` when the directory cannot be read. */
  readonly directory: ReplicaDirectory | undefined
  /** Present while it is open. */
  readonly volume: ReplicaVolume | undefined
  /** What it knows of itself and its volume. */
  readonly record: ReplicaRecord | undefined
}

/**
 * The replica in one directory, which it keeps locked, through its life: created, opened by an engine, closed again.
 * It serves one engine at a time; one that opens it while another has it open takes it over, and the other's connections end.
 * Changes of state run one after the other.
 */
export class Replica {
  readonly directory: string
  readonly settings = new ReplicaSettings()
  readonly hasher: SnapshotHasher
  readonly scrubber: LayerScrubber
  readonly restores: RestoreKeeper
  readonly #data: DataServer
  readonly #log: Log
  readonly #lock: DirectoryLock
  readonly #session: ReplicaSession
  readonly #purge: CurrentPurge
  readonly #layers: LayerUse
  readonly #record: RecordKeeper
  readonly #marker: SnapshotMarker
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(directory: string, lock: DirectoryLock, data: DataServer, log: Log) {
    this.directory = directory
    this.#lock = lock
    this.#data = data
    this.#log = log
    this.#purge = new CurrentPurge(log)
    this.#layers = new LayerUse(directory, this.#purge)
    this.#session = new ReplicaSession({directory, data, log, purge: this.#purge, onUnmap: volume => this.#marker.unmapped(volume)})
    this.#record = new RecordKeeper(directory, log)
    this.restores = new RestoreKeeper(directory, log)
    data.openExport = hello => this.#export(hello)
    this.hasher = new SnapshotHasher(directory, log)
    this.scrubber = new LayerScrubber(this)
    this.#marker = new SnapshotMarker(this, log)
  }

  /**
   * Takes the directory. With `sizeBytes` a replica of that size is created if there is none; without, the directory may be
   * empty or missing and is filled by create(). What is there is checked now, so that a bad replica is not found out
   * only when an engine comes. Throws as createReplica() and readReplicaDirectory() do.
   */
  static async take(directory: string, sizeBytes: number | undefined, data: DataServer, log: Log): Promise<Replica> {
    await makeReplicaDirectory(directory)
    const lock = new DirectoryLock(directory)
    try {
      const replica = new Replica(directory, lock, data, log)
      if (sizeBytes !== undefined) await createReplica(directory, sizeBytes, {lock})
      const {directory: found} = await replica.describe()
      await replica.#record.load(found?.sealed ?? true)
      await replica.restores.load(found)
      if (found !== undefined) logDirectory(found, log)
      return replica
    } catch (error) {
      lock.close()
      throw error
    }
  }

  /** What the replica is now. Throws CORRUPT and the like when the directory cannot be read. */
  async describe(): Promise<ReplicaDescription> {
    const session = this.#session.current
    if (session !== undefined) {
      const {volume} = session
      return {state: sessionState(session), directory: volume.directory, volume, record: this.#record.record}
    }
    try {
      const directory = await readReplicaDirectory(this.directory)
      return {state: 'closed', directory, volume: undefined, record: this.#record.record}
    } catch (error) {
      if (!isKind(error, 'NOT_FOUND')) throw error
      return {state: 'initial', directory: undefined, volume: undefined, record: this.#record.record}
    }
  }

  /** Creates the files of a replica where there are none; one of the same size is success. */
  create(sizeBytes: number): Promise<void> {
    return this.#inTurn(() => createReplica(this.directory, sizeBytes, {lock: this.#lock}))
  }

  /** Opens it for an engine. */
  open(opener: Opener): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#session.current !== undefined) {
        this.#session.takeOver(opener)
        // What the engine before is recording counts: it acknowledges writes when that is done.
        await this.#record.written()
        return
      }
      await this.#open(opener)
    })
  }

  /** Records durably who has everything that is acknowledged from now on. CONFLICT when another engine has taken over; see RecordKeeper.set(). */
  async setMembers(session: string, membership: Membership): Promise<void> {
    if (!this.isOpenFor(session)) {
      throw new LonghornError('CONFLICT', `the replica in ${this.directory} belongs to another engine by now, or is closed`)
    }
    await this.#record.set(membership)
  }

  /**
   * Opens a replica that is not up to date, so that it takes writes on top of a snapshot that it has not got yet; see joinDirectory().
   * Whoever had it open loses it. Where there is no replica yet one is created.
   */
  join(opener: Opener, request: JoinRequest): Promise<void> {
    return this.#inTurn(async () => {
      this.#data.disconnectAll(new LonghornError('CONFLICT', 'another engine has taken over this replica'))
      await this.#session.end('abandon')
      await this.#record.written()
      const {state} = await this.describe().catch(() => ({state: 'error' as const}))
      if (state === 'initial') await createReplica(this.directory, request.sizeBytes, {lock: this.#lock})
      await this.#record.settle()
      const joined = await joinDirectory(this.directory, request, this.#lock)
      // What it had is given up. Its record could be of a higher generation than that of those it joins.
      if (!joined.whole) await this.#record.forget()
      // Whether a backup is in it those know that it joins.
      await this.restores.forget()
      const rebuild = new Rebuild(this.directory, joined, realDisk, this.#log)
      const volume = await openJoining(this.directory, this.#lock, rebuild.fetchBelow)
      this.#session.begin({...opener, id: opener.session, volume, wasDirty: true, rebuild})
      this.#log.info({snapshot: request.snapshot, layers: request.layers.length, whole: joined.whole, formerHead: joined.formerHead}, 'joined to be rebuilt')
    })
  }

  /** Begins to fetch what is missing. CONFLICT when the replica has not joined, or it has begun. */
  rebuild(session: string, request: RebuildRequest): Promise<void> {
    return this.#inTurn(async () => {
      const {rebuild, volume} = this.#session.joined(session)
      const busy = new RecentChange(() => volume.changes)
      rebuild.start(request, () => busy.seen())
    })
  }

  /** An engine's session has it open. */
  isOpenFor(session: string): boolean {
    return this.#session.current?.id === session
  }

  /** An engine of ours has it open: rebuilds are its business, and not a client's. */
  get directed(): boolean {
    return this.#session.current?.strict === true
  }

  /** Of the rebuild under way, or the last one since the replica was opened. */
  get rebuildStatus(): RebuildStatus {
    return this.#session.rebuildStatus
  }

  /**
   * Everything has been fetched: makes a whole replica of it, which can be read. `layers`: as the others describe them now.
   * CONFLICT when something is missing.
   */
  finishRebuild(session: string, layers: readonly LayerDescription[]): Promise<void> {
    return this.#inTurn(async () => {
      const joined = this.#session.joined(session)
      await finishRebuild(joined.volume, joined.rebuild, layers)
      await this.#session.rebuilt(joined)
      this.#log.info('the rebuild is finished')
    })
  }

  /** See ReplicaVolume.prepareSnapshot; undefined takes back what was prepared. CONFLICT when the replica is not open. */
  prepareSnapshot(spec: SnapshotSpec | undefined): Promise<void> {
    return this.#inTurn(async () => {
      const {volume} = this.#session.opened
      if (spec === undefined) {
        await volume.discardPrepared()
        return
      }
      // Here and not when it is taken: an engine would drop a replica that refuses then.
      if (spec.userCreated) this.settings.checkSnapshot(volume)
      await volume.prepareSnapshot(spec)
    })
  }

  /**
   * Freezes the volume as it is; see ReplicaVolume.snapshot. An engine of ours makes it durable with a flush of its own when
   * it lets writes through again; for one of upstream, which has no flush, that is done here.
   */
  snapshot(spec: SnapshotSpec): Promise<void> {
    return this.#inTurn(async () => {
      const {volume, id} = this.#session.opened
      await volume.snapshot(spec)
      this.#log.info({snapshot: spec.name}, 'snapshot taken')
      if (id === '') await volume.flush()
    })
  }

  /** Makes the volume larger, for an engine that cannot prepare it; see snapshot(). Success when it is that large already. */
  expand(sizeBytes: number, created: string): Promise<void> {
    return this.#inTurn(async () => {
      const {volume} = this.#session.opened
      if (sizeBytes === volume.sizeBytes) return
      await volume.snapshot(expansionSpec(sizeBytes, created))
      await volume.flush()
      this.#log.info({sizeBytes}, 'expanded')
    })
  }

  /** Makes the volume what it was at a snapshot (a file name); see revertDirectory. Nothing may be reading or writing. */
  revert(layer: string, created: string): Promise<void> {
    return this.#inTurn(async () => {
      const {id, strict} = this.#session.opened
      await this.#session.end('close')
      try {
        await revertDirectory(this.directory, layer, created)
        this.#log.info({snapshot: layer}, 'reverted')
      } finally {
        await this.#open({session: id, strict})
      }
    })
  }

  /** Marks a snapshot (a file name) as removed: a purge gives its space back. One that is not there is success. */
  markRemoved(layer: string): Promise<void> {
    return this.#marker.mark(layer)
  }

  /** Runs a step that changes the layers of the open replica, while nothing else does. CONFLICT when it is not open, BUSY during a purge. */
  changeLayers<T>(step: (volume: ReplicaVolume) => Promise<T>): Promise<T> {
    return this.#inTurn(() => {
      const {volume, rebuild} = this.#session.opened
      this.#layers.refuseChange(rebuild !== undefined)
      return step(volume)
    })
  }

  /** Removes the files of the replica; others can be created in their place. BUSY while it is open. */
  delete(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#session.current !== undefined) throw new LonghornError('BUSY', `the replica in ${this.directory} is open: close it before deleting it`)
      await deleteReplicaFiles(this.directory)
      await this.#record.load(true)
      await this.restores.load(undefined)
      this.#log.warn('deleted')
    })
  }

  /** Begins to give back the space of removed snapshots; see Purge. BUSY while one is running, CONFLICT when the replica is not open. */
  purge(): Promise<void> {
    return this.#inTurn(async () => {
      const session = this.#session.opened
      this.#layers.refuseChange(session.rebuild !== undefined)
      const exclusive: Exclusive = step =>
        this.#inTurn(async () => {
          if (this.#session.current?.volume !== session.volume) throw new LonghornError('INTERRUPTED', 'the replica was closed')
          return step()
        })
      await this.scrubber.healer.settled()
      this.#purge.start(session.volume, exclusive)
    })
  }

  /** What it knows of itself and its volume. */
  get record(): ReplicaRecord | undefined {
    return this.#record.record
  }

  /** What is reading or replacing files of frozen layers right now; a purge would change them meanwhile. */
  get transfers(): Set<string> {
    return this.#layers.transfers
  }

  /** Keeps purges away until the function that is returned is called. BUSY while there is one. `what` uses the layers, for the error of the next one. */
  useLayers(what: string): () => void {
    return this.#layers.begin(what)
  }

  get isPurging(): boolean {
    return this.#purge.isRunning
  }

  /** Resolves when no purge runs, in whatever way it ended. */
  async purgeEnded(): Promise<void> {
    await this.#purge.ended()
  }

  /** Ends a purge, for what is worth more. What it has not done the next one does. */
  async breakOffPurge(why: string): Promise<void> {
    if (!this.isPurging) return
    this.#log.warn(`the purge is broken off: ${why}`)
    this.#purge.breakOff()
    await this.#purge.ended()
  }

  /** The volume while it is open. Throws CONFLICT. */
  get openVolume(): ReplicaVolume {
    return this.#session.opened.volume
  }

  /** Of the last purge since the process began. */
  get purgeStatus(): PurgeStatus {
    return this.#purge.status
  }

  /** Continues the revision counter from another number. CONFLICT when the replica is not open or counts nothing. */
  setRevision(revision: number): Promise<void> {
    return this.#inTurn(async () => {
      const {volume} = this.#session.opened
      if (volume.revision === undefined) throw new LonghornError('CONFLICT', `the replica in ${this.directory} keeps no revision counter`)
      volume.revision = revision
      await volume.flush()
    })
  }

  /** Runs a step that changes files of the directory, given the open volume if there is one, while nothing else changes its state. */
  exclusive<T>(step: (volume: ReplicaVolume | undefined) => Promise<T>): Promise<T> {
    return this.#inTurn(() => step(this.#session.current?.volume))
  }

  /** Forgets what has come of the last purge, unless it is running. */
  resetStatus(): void {
    this.#purge.forget()
  }

  /** Finishes what was admitted, flushes and records that the replica is clean. Success when it is not open. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#session.end('close')
    })
  }

  /** Closes it if this session has it open. */
  release(session: string): Promise<void> {
    return this.#inTurn(async () => {
      if (this.isOpenFor(session)) await this.#session.end('close')
    })
  }

  /** Closes it and gives the directory back. Safe twice. */
  async giveBack(): Promise<void> {
    try {
      await this.close()
      await this.#purge.ended()
      await this.hasher.close()
      await this.scrubber.healer.settled()
    } finally {
      this.#session.dispose()
      this.#lock.close()
    }
  }

  async #open(opener: Opener): Promise<void> {
    // One that was lost is that of a replica which was in use.
    const wasDirty = (await readVolumeMeta(this.directory))?.dirty ?? true
    await this.#record.settle()
    const volume = await openReplica(this.directory, {lock: this.#lock})
    if (volume.leftovers.length > 0) this.#log.warn({files: volume.leftovers}, 'removed files of an interrupted operation')
    this.#session.begin({...opener, id: opener.session, volume, wasDirty})
    this.#log.info({sizeBytes: volume.sizeBytes, layers: volume.directory.chain.length, wasDirty}, 'open')
  }

  async #export(hello: ExportHello): Promise<Export> {
    const session = this.#session.current
    if (session === undefined || session.rebuild !== undefined) throw new LonghornError('CONFLICT', 'this replica is no source: it is closed, or being rebuilt itself')
    this.#layers.beginExport()
    try {
      // Another replica is worth more than space.
      await this.breakOffPurge('the layers are needed to rebuild another replica')
      // In turn: a snapshot that is taken meanwhile replaces files while the directory is being read.
      const opened = await this.#inTurn(() => openExport(this.directory, hello, this.#log))
      const close = (): void => {
        this.#layers.endExport()
        opened.close()
      }
      return {device: opened.device, close}
    } catch (error) {
      this.#layers.endExport()
      throw error
    }
  }

  /** Runs `step` when the steps before it are done, whatever came of them. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(step)
    this.#queue = result.catch(() => undefined)
    return result
  }
}

function logDirectory(found: ReplicaDirectory, log: Log): void {
  const {volume, chain, damaged} = found
  log.info({sizeBytes: volume.sizeBytes, layers: chain.length, dirty: volume.dirty}, 'found a replica')
  for (const problem of damaged) log.warn({problem}, 'a layer outside the live chain cannot be read')
}
