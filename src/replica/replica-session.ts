import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {RepeatLog} from '../lib/repeat-log.js'
import type {DataServer} from './data-server.js'
import type {CurrentPurge} from './purge/current-purge.js'
import type {Rebuild, RebuildStatus} from './rebuild/rebuild.js'
import {ReplicaDevice} from './replica-device.js'
import type {ReplicaVolume} from './replica-volume.js'

/** Who opens a replica. */
export interface Opener {
  /** The engine's session; '' for upstream's engines, which have none and must find the replica closed. */
  readonly session: string
  /** The engine says on each data connection that it is of this session. */
  readonly strict: boolean
}

/** A replica that is open for an engine. */
export interface Session {
  readonly id: string
  readonly volume: ReplicaVolume
  readonly device: ReplicaDevice
  /** It was not closed cleanly before this session. */
  readonly wasDirty: boolean
  /** Layers are still missing; see Replica.join(). */
  readonly rebuild?: Rebuild | undefined
  /** See Served.strict. */
  readonly strict: boolean
}

/** A session whose replica has joined a volume to be rebuilt. */
export type JoinedSession = Session & {readonly rebuild: Rebuild}

export interface ReplicaSessionOptions {
  readonly directory: string
  readonly data: DataServer
  readonly log: Log
  /** Broken off when the session ends. */
  readonly purge: CurrentPurge
  /** Space has been given up in the head. */
  readonly onUnmap: (volume: ReplicaVolume) => void
}

/** The engine that a replica is open for, one at a time, and what it reaches through the data port. */
export class ReplicaSession {
  readonly #options: ReplicaSessionOptions
  /** What may happen with every request. */
  readonly #repeats: RepeatLog
  #current: Session | undefined
  #lastRebuild: RebuildStatus = {state: '', error: '', done: 0, total: 0, copied: 0, failedSource: ''}

  constructor(options: ReplicaSessionOptions) {
    this.#options = options
    this.#repeats = new RepeatLog(options.log)
  }

  /** Undefined while the replica is closed. */
  get current(): Session | undefined {
    return this.#current
  }

  /** Throws CONFLICT while the replica is closed. */
  get opened(): Session {
    if (this.#current === undefined) throw new LonghornError('CONFLICT', `the replica in ${this.#options.directory} is not open`)
    return this.#current
  }

  /** Of the rebuild under way, or the last one since the replica was opened. */
  get rebuildStatus(): RebuildStatus {
    return this.#current?.rebuild?.status ?? this.#lastRebuild
  }

  /** Throws CONFLICT unless the engine of this session has the replica open, to be rebuilt. */
  joined(id: string): JoinedSession {
    const {directory} = this.#options
    const {opened} = this
    if (opened.id !== id) throw new LonghornError('CONFLICT', `the replica in ${directory} belongs to another engine by now`)
    if (opened.rebuild === undefined) throw new LonghornError('CONFLICT', `the replica in ${directory} has not joined a volume to be rebuilt`)
    return {...opened, rebuild: opened.rebuild}
  }

  /** Begins: the volume is open, and from now on requests of its engine reach it. */
  begin(opened: Omit<Session, 'device'>): void {
    const {data, onUnmap} = this.#options
    const device = new ReplicaDevice(opened.volume, (error, operation) => this.#ioFailed(error, operation), () => onUnmap(opened.volume))
    this.#current = {...opened, device}
    data.serve({device, session: opened.id, strict: opened.strict})
  }

  /** Another engine goes on with the open volume. BUSY for one that has no session, or this one; CONFLICT during a rebuild. */
  takeOver({session: id, strict}: Opener): void {
    const {directory, data, log} = this.#options
    const {opened} = this
    if (id === '' || id === opened.id) throw new LonghornError('BUSY', `the replica in ${directory} is open already`)
    if (opened.rebuild !== undefined) throw new LonghornError('CONFLICT', `the replica in ${directory} is being rebuilt and not complete`)
    log.warn({from: opened.id, to: id}, 'another engine takes over; the connections of the one before are ended')
    this.#current = {...opened, id, strict}
    data.serve({device: opened.device, session: id, strict})
    data.disconnectAll(new LonghornError('CONFLICT', 'another engine has taken over this replica'))
  }

  /** The rebuild is finished: goes on with a whole replica. */
  async rebuilt(joined: JoinedSession): Promise<void> {
    this.#lastRebuild = joined.rebuild.status
    await joined.rebuild.stop()
    this.#current = {...joined, rebuild: undefined}
  }

  /** Ends it and closes or abandons the volume. Nothing to do while the replica is closed. Errors as those of ReplicaVolume. */
  async end(how: 'close' | 'abandon'): Promise<void> {
    const session = this.#current
    if (session === undefined) return
    const {data, purge, log} = this.#options
    data.serve(undefined)
    this.#current = undefined
    // Its next step in turn is refused; what it does out of turn ends here.
    purge.breakOff()
    if (session.rebuild !== undefined) {
      await session.rebuild.stop()
      this.#lastRebuild = session.rebuild.status
    }
    try {
      await session.volume[how]()
      log.info('closed')
    } finally {
      session.device.close()
    }
  }

  /** Says what it has not said yet of failed requests. To be called last. */
  dispose(): void {
    this.#repeats.close()
  }

  #ioFailed(error: unknown, operation: string): void {
    const code = error instanceof LonghornError ? error.code : ''
    this.#repeats.error(`${operation} ${code}`, {operation, err: error}, 'a request failed')
  }
}

/** What an open replica is doing, in upstream's words. */
export function sessionState({volume, wasDirty, rebuild}: Session): 'open' | 'dirty' | 'rebuilding' | 'error' {
  if (volume.failure !== undefined || volume.meta.error !== '') return 'error'
  if (volume.meta.rebuilding || rebuild !== undefined) return 'rebuilding'
  return wasDirty || volume.written ? 'dirty' : 'open'
}
