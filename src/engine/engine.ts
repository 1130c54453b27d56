import {randomUUID} from 'node:crypto'
import {formatAddress, type Address} from '../lib/address.js'
import {Cleanup} from '../lib/cleanup.js'
import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {checkReplicaList, claimReplicas, tooFew} from './claim-replicas.js'
import type {FrontendKind, IscsiSettings} from './frontends/frontend.js'
import {linksOf, type EngineState} from './handover/engine-state.js'
import {parkEngine, type ParkedEngine} from './handover/park-engine.js'
import {MemberLog} from './membership.js'
import {openLink} from './open-link.js'
import type {RebuildInfo} from './rebuild.js'
import {Rebuilds} from './rebuilds.js'
import type {Choice} from './replica-choice.js'
import {parseReplicaAddress, ReplicaControl} from './replica-control.js'
import type {ReplicaLink} from './replica-link.js'
import {ReplicaSet, type ReplicaStatus} from './replica-set.js'
import {Scrub} from './scrub/scrub.js'
import type {Members} from './snapshots.js'
import {takeTurns} from './turns.js'
import {Volume} from './volume.js'
import {adoptFrontend, DRAIN_MS, VolumeFrontend, type FrontendInfo} from './volume-frontend.js'
import {VolumeRestore} from './volume-restore.js'
import {VolumeSnapshots, type SnapshotOptions} from './volume-snapshots.js'
import {defaultSettings, pushSettings, setSnapshotMaxCount, setSnapshotMaxSize, setUnmapMark, type VolumeSettings} from './volume-settings.js'

export interface EngineOptions {
  readonly volume: string
  readonly sizeBytes: number
  /** See chooseReplicas(). */
  readonly currentSizeBytes?: number | undefined
  /** `tcp://host:port` of each replica's control service. */
  readonly replicas: readonly string[]
  /** With fewer usable replicas than this the engine does not start. */
  readonly leastReplicas: number
  /** Start with the best of what answers; see ChoiceOptions. */
  readonly salvage?: boolean | undefined
  readonly writeThrough: boolean
  readonly replicaTimeoutMs: number
  /** The kinds of frontend there are; the CLI puts the list together. */
  readonly frontends: readonly FrontendKind[]
  readonly iscsi?: IscsiSettings | undefined
  /** Changed by the engine when somebody sets one; the defaults when left out. */
  readonly settings?: VolumeSettings | undefined
  readonly log: Log
}

/** One volume being served: its replicas, the replicator over them, and at most one frontend. */
export class Engine {
  readonly volume: Volume
  readonly settings: VolumeSettings
  readonly scrub: Scrub
  readonly restore: VolumeRestore
  readonly #options: EngineOptions
  readonly #replicas: ReplicaSet
  readonly #members: Members
  readonly #session: string
  readonly #memberLog: MemberLog
  readonly #rebuilds: Rebuilds
  readonly #frontend: VolumeFrontend
  readonly #snapshots: VolumeSnapshots
  /** Starts and stops of the frontend, snapshots, and whatever else changes what the replicas are. */
  readonly #inTurn = takeTurns()
  #closed: Promise<void> | undefined

  private constructor(options: EngineOptions, volume: Volume, controls: ReadonlyMap<string, ReplicaControl>, choice: Choice, session: string) {
    this.#options = options
    this.volume = volume
    this.settings = options.settings ?? defaultSettings()
    this.#replicas = new ReplicaSet(volume, options.log, controls, new Map([...choice.rejected, ...choice.rebuild]))
    const control = (link: ReplicaLink): ReplicaControl => this.#replicas.control(link.address)
    this.#members = {volume, control, log: options.log}
    this.#session = session
    this.#memberLog = new MemberLog(volume, session, control, options.log, choice.membership)
    volume.recordMembers = () => this.#memberLog.record()
    this.scrub = new Scrub({volume, layersOf: link => control(link).frozenLayers(), log: options.log})
    const inTurn = this.#inTurn
    const checkOpen = (): void => this.#checkOpen()
    this.restore = new VolumeRestore({...this.#members, session, inTurn, frontend: () => this.#frontend.name})
    this.#rebuilds = new Rebuilds({
      ...this.#members,
      session,
      replicaTimeoutMs: options.replicaTimeoutMs,
      members: this.#memberLog,
      replicas: this.#replicas,
      settings: this.settings,
      inTurn,
      checkIdle: () => this.restore.checkIdle('given another replica'),
      checkOpen,
    })
    this.#frontend = new VolumeFrontend({
      volume,
      frontends: options.frontends,
      iscsi: options.iscsi,
      log: options.log,
      inTurn,
      checkUsable: async () => {
        checkOpen()
        await this.restore.checkUsable()
      },
    })
    this.#snapshots = new VolumeSnapshots({
      ...this.#members,
      settings: this.settings,
      frontend: this.#frontend,
      inTurn,
      checkIdle: what => this.restore.checkIdle(what),
    })
    volume.repairs.onFrozen = (link, offset, length) => this.scrub.wanted(link, offset, length)
  }

  /**
   * Opens the replicas. Nothing is changed on any of them before all have been asked and the answers fit together.
   * Those that have to be rebuilt are, in the background. Throws as chooseReplicas() does, and `signal`'s reason.
   */
  static async start(options: EngineOptions, signal?: AbortSignal): Promise<Engine> {
    const addresses = checkReplicaList(options.replicas)
    await using undo = new Cleanup()
    const controls = addresses.map(address => new ReplicaControl(address, options.volume))
    undo.defer(() => {
      for (const control of controls) control.disconnect()
    })
    const session = randomUUID()
    const choice = await claimReplicas(controls, session, options, signal)
    const complete = choice.usable.length + choice.resync.length
    if (complete < options.leastReplicas) throw tooFew(options.leastReplicas, complete, new Map([...choice.rejected, ...choice.rebuild]))

    const volume = new Volume({...options, name: options.volume, sizeBytes: choice.sizeBytes})
    undo.defer(() => volume.close())
    const engine = new Engine(options, volume, new Map(controls.map(control => [control.address, control])), choice, session)
    await engine.#openAll(controls.filter(control => choice.usable.includes(control.address)), undo, signal)
    signal?.throwIfAborted()
    if (volume.replicas.length === 0) throw tooFew(Math.max(options.leastReplicas, 1), 0, engine.#replicas.rejected)
    for (const address of choice.resync) await engine.#rebuilds.resync(address)
    if (volume.members.length < options.leastReplicas) throw tooFew(options.leastReplicas, volume.members.length, engine.#replicas.rejected)
    volume.recordBeforeChange()
    for (const [address, reason] of engine.#replicas.rejected) options.log.error({replica: address, reason: reason.message}, 'starting without this replica')
    warnOfUnsafeReplicas(volume, options.log)
    for (const address of choice.rebuild.keys()) engine.#rebuilds.beginInBackground(address)
    await Promise.all(volume.members.map(link => pushSettings(engine.#members, link, engine.settings)))
    undo.move()
    return engine
  }

  /**
   * Prepares to go on in place of an engine of another process, with its connections; what this resolves to starts it, at once, and
   * nothing happens before the end of that turn. Nothing is asked of a replica. Throws as FrontendKind.adopt() does.
   */
  static async adopt(options: EngineOptions, state: EngineState, fds: readonly number[]): Promise<() => Engine> {
    const {frontend} = state
    const volume = new Volume({...options, name: options.volume, sizeBytes: state.sizeBytes})
    volume.adoptChanges(state.changes)
    const serve = frontend && (await adoptFrontend({...options, volume}, frontend.name, {state: frontend.state, fds: fds.slice(frontend.firstFd)}))
    Object.assign(options.settings ?? {}, state.settings)
    return () => {
      const controls = new Map(state.replicas.map(({address}) => [address, new ReplicaControl(address, options.volume)]))
      const rejected = new Map(state.replicas.flatMap(({address, reason}) => (reason === undefined ? [] : [[address, new LonghornError('IO', reason)] as const])))
      const {sizeBytes, membership, session} = state
      const engine = new Engine(options, volume, controls, {sizeBytes, usable: [], resync: [], rebuild: new Map(), rejected, membership}, session)
      if (membership === undefined) volume.recordBeforeChange()
      else engine.#memberLog.goOn(membership)
      for (const link of linksOf(state, fds, volume, options.replicaTimeoutMs)) {
        volume.addReplica(link)
        controls.get(link.address)!.adopt(session, link.features)
      }
      if (serve !== undefined) engine.#frontend.goOn(serve())
      return engine
    }
  }

  /** Lets everything stand still while `use` gives it to another process, or has it go on; see parkEngine(). */
  handOver(use: (parked: ParkedEngine) => Promise<void>): Promise<void> {
    return this.#inTurn(async () => {
      this.#checkOpen()
      this.restore.checkIdle('handed over')
      // What the next one goes on from.
      await this.volume.recorded()
      const {serving} = this.#frontend
      const frontend = serving && {name: serving.kind.name, server: serving.server}
      const {volume, settings, scrub, rebuilds} = this
      const facts = {replicas: () => this.replicas, membership: () => this.#memberLog.last}
      await use(await parkEngine({volume, settings, scrub, rebuilds, frontend, session: this.#session, ...facts}))
    })
  }

  async #openAll(controls: readonly ReplicaControl[], undo: Cleanup, signal: AbortSignal | undefined): Promise<void> {
    const {volume} = this
    await Promise.all(
      controls.map(async (control, index) => {
        try {
          const link = await openLink({...this.#options, volume, control, session: this.#session, signal}, 1 << index)
          link.member = true
          volume.addReplica(link)
          undo.defer(() => control.close())
        } catch (error) {
          this.#replicas.reject(control.address, error as LonghornError)
        }
      }),
    )
  }

  /**
   * Takes a replica in, new or returning, and rebuilds it in the background. Resolves when it takes part in writes. One that is in use
   * is success. Errors as those of Rebuild.join(); BUSY while another one is being rebuilt.
   */
  async addReplica(text: string, bytesPerSecond = 0): Promise<ReplicaStatus> {
    return this.#rebuilds.add(formatAddress(parseReplicaAddress(text)), bytesPerSecond)
  }

  /** Throws NOT_FOUND. */
  findReplica(address: string): ReplicaStatus {
    return this.#replicas.find(address)
  }

  /** Waits until a replica that is being rebuilt is up to date. NOT_FOUND, or IO with the reason when it could not be rebuilt. */
  rebuilt(address: string, signal: AbortSignal): Promise<ReplicaStatus> {
    return this.#rebuilds.ended(address, signal)
  }

  /** The last rebuild of each replica. */
  get rebuilds(): readonly RebuildInfo[] {
    return this.#rebuilds.infos
  }

  /** Every replica that was given, in that order. */
  get replicas(): readonly ReplicaStatus[] {
    return this.#replicas.all
  }

  get log(): Log {
    return this.#options.log
  }

  /** The frontend that is up, if any. */
  get frontend(): FrontendInfo | undefined {
    return this.#frontend.info
  }

  /** Starts to serve the volume. The same frontend twice is success; another one while one is up is CONFLICT, an unknown name USAGE. */
  startFrontend(name: string, listen?: Address): Promise<void> {
    return this.#frontend.start(name, listen)
  }

  /** Stops to serve the volume; success when nothing is up. */
  stopFrontend(): Promise<void> {
    return this.#frontend.stop()
  }

  /** See VolumeSnapshots.take(). */
  takeSnapshot(name: string | undefined, labels: Readonly<Record<string, string>>, options?: SnapshotOptions): Promise<string> {
    return this.#snapshots.take(name, labels, options)
  }

  /** See VolumeSnapshots.expand(). */
  expand(sizeBytes: number): Promise<void> {
    return this.#snapshots.expand(sizeBytes)
  }

  /** See VolumeSnapshots.revert(). */
  revert(name: string): Promise<void> {
    return this.#snapshots.revert(name)
  }

  /** See setUnmapMark() in volume-settings.ts. */
  setUnmapMark(enabled: boolean): Promise<void> {
    return this.#inTurn(() => setUnmapMark(this.#members, this.settings, enabled))
  }

  /** See setSnapshotMaxCount() in volume-settings.ts. */
  setSnapshotMaxCount(count: number): Promise<void> {
    return this.#inTurn(() => setSnapshotMaxCount(this.#members, this.settings, count))
  }

  /** See setSnapshotMaxSize() in volume-settings.ts. */
  setSnapshotMaxSize(sizeBytes: number): Promise<void> {
    return this.#inTurn(() => setSnapshotMaxSize(this.#members, this.settings, sizeBytes))
  }

  /**
   * Takes a replica out of the volume and closes it. Success when it is not one of the volume's. CONFLICT for the last one that can
   * be used while a frontend is up.
   */
  removeReplica(address: string): Promise<void> {
    return this.#inTurn(() => this.#replicas.remove(address, this.#frontend.name !== undefined))
  }

  /** Takes a replica out of use until it is removed. Success when it is already; NOT_FOUND; CONFLICT for the last one that can be used. */
  setAside(address: string): Promise<void> {
    return this.#inTurn(async () => this.#replicas.setAside(address))
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) throw new LonghornError('CONFLICT', 'the engine is shutting down')
  }

  /** Shuts the frontend down, lets requests finish, flushes and closes the replicas. Safe twice. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const failures: unknown[] = []
    this.#rebuilds.stop()
    await this.restore.stop()
    await this.stopFrontend().catch((error: unknown) => failures.push(error))
    await this.scrub.close()
    await Promise.race([this.volume.drained(), delay(DRAIN_MS)])
    if (this.volume.requestsInFlight > 0) {
      this.#options.log.warn({requests: this.volume.requestsInFlight}, 'requests have not finished: the replicas stay as they are, and are compared when the next engine starts')
    }
    const open = this.volume.replicas.filter(link => link.mode !== 'ERR' && this.volume.requestsInFlight === 0).map(link => this.#replicas.control(link.address))
    this.volume.close()
    const results = await Promise.allSettled(open.map(control => control.close()))
    for (const result of results) if (result.status === 'rejected') failures.push(result.reason)
    await this.#rebuilds.allEnded()
    this.#replicas.disconnect()
    if (failures.length > 0) throw failures[0]
  }
}

/** Replicas of upstream have no flush: what the initiator flushes is as safe there as upstream makes it. */
function warnOfUnsafeReplicas(volume: Volume, to: Log): void {
  for (const link of volume.replicas) {
    if (!link.canFlush) to.warn({replica: link.address}, 'this replica cannot flush: after a power cut it may lack writes that were flushed')
  }
}

function delay(ms: number): Promise<void> {
  return new Promise(resolve => {
    setTimeout(resolve, ms).unref()
  })
}
