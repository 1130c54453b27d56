import {isKind, LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {createReplica, makeReplicaDirectory} from './create-replica.js'
import type {DataServer} from './data-server.js'
import {DirectoryLock} from './directory-lock.js'
import {readReplicaDirectory, type ReplicaDirectory} from './layer-chain.js'
import {isHeadName} from './layer-names.js'
import {writeLayerMeta} from './layer-meta-file.js'
import {openReplica} from './open-replica.js'
import {ReplicaDevice} from './replica-device.js'
import type {ReplicaVolume} from './replica-volume.js'
import {Purge, type Exclusive, type PurgeStatus} from './purge/purge.js'
import {revertDirectory} from './revert.js'
import {expansionSpec, type SnapshotSpec} from './snapshot.js'

/** Upstream's names for what a replica is doing; engines look at them. */
export type ReplicaState = 'initial' | 'closed' | 'open' | 'dirty' | 'rebuilding' | 'error'

export interface ReplicaDescription {
  readonly state: ReplicaState
  /** Undefined in states `initial` and `error` when the directory cannot be read. */
  readonly directory: ReplicaDirectory | undefined
  /** Present while it is open. */
  readonly volume: ReplicaVolume | undefined
}

interface Session {
  readonly id: string
  readonly volume: ReplicaVolume
  readonly device: ReplicaDevice
  /** It was not closed cleanly before this session. */
  readonly wasDirty: boolean
}

/**
 * The replica in one directory, which it keeps locked, through its life: created, opened by an engine, closed again.
 * It serves one engine at a time; one that opens it while another has it open takes it over, and the other's connections end.
 * Changes of state run one after the other.
 */
export class Replica {
  readonly directory: string
  /** What is reading or replacing files of frozen layers right now; a purge would change them meanwhile. */
  readonly transfers = new Set<string>()
  readonly #data: DataServer
  readonly #log: Log
  readonly #lock: DirectoryLock
  #session: Session | undefined
  #purge: Purge | undefined
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(directory: string, lock: DirectoryLock, data: DataServer, log: Log) {
    this.directory = directory
    this.#lock = lock
    this.#data = data
    this.#log = log
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
      if (found !== undefined) logDirectory(found, log)
      return replica
    } catch (error) {
      lock.close()
      throw error
    }
  }

  /** What the replica is now. Throws CORRUPT and the like when the directory cannot be read. */
  async describe(): Promise<ReplicaDescription> {
    const session = this.#session
    if (session !== undefined) {
      const {volume} = session
      return {state: openState(session), directory: volume.directory, volume}
    }
    try {
      const directory = await readReplicaDirectory(this.directory)
      return {state: 'closed', directory, volume: undefined}
    } catch (error) {
      if (!isKind(error, 'NOT_FOUND')) throw error
      return {state: 'initial', directory: undefined, volume: undefined}
    }
  }

  /** Creates the files of a replica where there are none; one of the same size is success. */
  create(sizeBytes: number): Promise<void> {
    return this.#inTurn(() => createReplica(this.directory, sizeBytes, {lock: this.#lock}))
  }

  /** Opens it for the engine session `id` ('' for upstream's engines, which have none and must find it closed). */
  open(id: string): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#session !== undefined) {
        this.#takeOver(this.#session, id)
        return
      }
      await this.#open(id)
    })
  }

  /** See ReplicaVolume.prepareSnapshot; undefined takes back what was prepared. CONFLICT when the replica is not open. */
  prepareSnapshot(spec: SnapshotSpec | undefined): Promise<void> {
    return this.#inTurn(async () => {
      const {volume} = this.#opened()
      if (spec === undefined) await volume.discardPrepared()
      else await volume.prepareSnapshot(spec)
    })
  }

  /**
   * Freezes the volume as it is; see ReplicaVolume.snapshot. An engine of ours makes it durable with a flush of its own when
   * it lets writes through again; for one of upstream, which has no flush, that is done here.
   */
  snapshot(spec: SnapshotSpec): Promise<void> {
    return this.#inTurn(async () => {
      const {volume, id} = this.#opened()
      await volume.snapshot(spec)
      this.#log.info({snapshot: spec.name}, 'snapshot taken')
      if (id === '') await volume.flush()
    })
  }

  /** Makes the volume larger, for an engine that cannot prepare it; see snapshot(). Success when it is that large already. */
  expand(sizeBytes: number, created: string): Promise<void> {
    return this.#inTurn(async () => {
      const {volume} = this.#opened()
      if (sizeBytes === volume.sizeBytes) return
      await volume.snapshot(expansionSpec(sizeBytes, created))
      await volume.flush()
      this.#log.info({sizeBytes}, 'expanded')
    })
  }

  /** Makes the volume what it was at a snapshot (a file name); see revertDirectory. Nothing may be reading or writing. */
  revert(layer: string, created: string): Promise<void> {
    return this.#inTurn(async () => {
      const {id} = this.#opened()
      await this.#shut()
      try {
        await revertDirectory(this.directory, layer, created)
        this.#log.info({snapshot: layer}, 'reverted')
      } finally {
        await this.#open(id)
      }
    })
  }

  /** Marks a snapshot (a file name) as removed: a purge gives its space back. One that is not there is success. */
  markRemoved(layer: string): Promise<void> {
    return this.#inTurn(async () => {
      if (isHeadName(layer)) throw new LonghornError('USAGE', `${layer} is the head of the volume and no snapshot`)
      const {directory, volume} = await this.describe()
      const found = [...(directory?.chain ?? []), ...(directory?.others ?? [])].find(one => one.file === layer)
      if (found === undefined || found.meta.removed) return
      const meta = {...found.meta, removed: true}
      await writeLayerMeta(this.directory, layer, meta)
      volume?.describeLayer(layer, meta)
      this.#log.info({snapshot: layer}, 'snapshot marked as removed')
    })
  }

  /** Begins to give back the space of removed snapshots; see Purge. BUSY while one is running, CONFLICT when the replica is not open. */
  purge(): Promise<void> {
    return this.#inTurn(async () => {
      const session = this.#opened()
      const [transfer] = this.transfers
      if (transfer !== undefined) throw new LonghornError('BUSY', `the replica in ${this.directory} is busy with ${transfer}: purge it when that is done`)
      if (this.#purge?.status.state === 'in_progress') throw new LonghornError('BUSY', `the replica in ${this.directory} is already purging`)
      const exclusive: Exclusive = step =>
        this.#inTurn(async () => {
          if (this.#session?.volume !== session.volume) throw new LonghornError('INTERRUPTED', 'the replica was closed')
          return step()
        })
      this.#purge = Purge.start(session.volume, exclusive, this.#log)
    })
  }

  /** Of the last purge since the process began. */
  get purgeStatus(): PurgeStatus {
    return this.#purge?.status ?? {state: '', progress: 0, error: ''}
  }

  /** Continues the revision counter from another number. CONFLICT when the replica is not open or counts nothing. */
  setRevision(revision: number): Promise<void> {
    return this.#inTurn(async () => {
      const {volume} = this.#opened()
      if (volume.revision === undefined) throw new LonghornError('CONFLICT', `the replica in ${this.directory} has no revision counter`)
      volume.revision = revision
      await volume.flush()
    })
  }

  /** Runs a step that changes files of the directory, given the open volume if there is one, while nothing else changes its state. */
  exclusive<T>(step: (volume: ReplicaVolume | undefined) => Promise<T>): Promise<T> {
    return this.#inTurn(() => step(this.#session?.volume))
  }

  /** Forgets what has come of the last purge, unless it is running. */
  resetStatus(): void {
    if (this.#purge?.status.state !== 'in_progress') this.#purge = undefined
  }

  /** Finishes what was admitted, flushes and records that the replica is clean. Success when it is not open. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#shut()
    })
  }

  /** Closes it and gives the directory back. Safe twice. */
  async release(): Promise<void> {
    try {
      await this.close()
      await this.#purge?.ended()
    } finally {
      this.#lock.close()
    }
  }

  async #open(id: string): Promise<void> {
    const before = await readReplicaDirectory(this.directory)
    const volume = await openReplica(this.directory, {lock: this.#lock})
    if (volume.leftovers.length > 0) this.#log.warn({files: volume.leftovers}, 'removed files of an interrupted operation')
    const device = new ReplicaDevice(volume, error => this.#ioFailed(error))
    this.#session = {id, volume, device, wasDirty: before.volume.dirty}
    this.#data.serve(device)
    this.#log.info({sizeBytes: volume.sizeBytes, layers: volume.directory.chain.length, wasDirty: before.volume.dirty}, 'open')
  }

  async #shut(): Promise<void> {
    const session = this.#session
    if (session === undefined) return
    this.#data.serve(undefined)
    this.#session = undefined
    // Its next step in turn is refused; what it does out of turn ends here.
    this.#purge?.breakOff()
    try {
      await session.volume.close()
      this.#log.info('closed')
    } finally {
      session.device.close()
    }
  }

  #opened(): Session {
    if (this.#session === undefined) throw new LonghornError('CONFLICT', `the replica in ${this.directory} is not open`)
    return this.#session
  }

  #takeOver(session: Session, id: string): void {
    if (id === '' || id === session.id) throw new LonghornError('BUSY', `the replica in ${this.directory} is open already`)
    this.#log.warn({from: session.id, to: id}, 'another engine takes over; the connections of the one before are ended')
    this.#session = {...session, id}
    this.#data.disconnectAll(new LonghornError('CONFLICT', 'another engine has taken over this replica'))
  }

  #ioFailed(error: unknown): void {
    this.#log.error({err: error}, 'a request failed')
  }

  /** Runs `step` when the steps before it are done, whatever came of them. */
  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(step)
    this.#queue = result.catch(() => undefined)
    return result
  }
}

function openState({volume, wasDirty}: Session): ReplicaState {
  if (volume.failure !== undefined || volume.meta.error !== '') return 'error'
  if (volume.meta.rebuilding) return 'rebuilding'
  return wasDirty || volume.written ? 'dirty' : 'open'
}

function logDirectory(found: ReplicaDirectory, log: Log): void {
  const {volume, chain, damaged} = found
  log.info({sizeBytes: volume.sizeBytes, layers: chain.length, dirty: volume.dirty}, 'found a replica')
  for (const problem of damaged) log.warn({problem}, 'a layer outside the live chain cannot be read')
}
