import {LonghornError, messageOf} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {ReplicaControl} from './replica-control.js'
import type {ReplicaLink, ReplicaMode} from './replica-link.js'
import type {Volume} from './volume.js'

/** A replica as the outside sees it. */
export interface ReplicaStatus {
  readonly address: string
  readonly mode: ReplicaMode
  /** Why it is ERR. */
  readonly reason: string | undefined
}

const SET_ASIDE = new LonghornError('CONFLICT', 'set to ERR on request')
const REMOVED = new LonghornError('CONFLICT', 'removed from the volume')

/** The replicas that a volume was given, each with its control service: those in use, and those that are not, with the reason. */
export class ReplicaSet {
  readonly #volume: Volume
  readonly #log: Log
  readonly #controls: Map<string, ReplicaControl>
  /** Those that could not be used. */
  readonly #rejected: Map<string, LonghornError>

  /** `controls`: of each, by its address, in the order given. */
  constructor(volume: Volume, log: Log, controls: ReadonlyMap<string, ReplicaControl>, rejected: ReadonlyMap<string, LonghornError>) {
    this.#volume = volume
    this.#log = log
    this.#controls = new Map(controls)
    this.#rejected = new Map(rejected)
  }

  /** Every one, in the order given. */
  get all(): readonly ReplicaStatus[] {
    return [...this.#controls.keys()].map(address => this.status(address))
  }

  get rejected(): ReadonlyMap<string, LonghornError> {
    return this.#rejected
  }

  has(address: string): boolean {
    return this.#controls.has(address)
  }

  /** Throws NOT_FOUND. */
  find(address: string): ReplicaStatus {
    if (this.#controls.has(address)) return this.status(address)
    throw unknownReplica(address)
  }

  /** Of one that is not there any more: ERR. */
  status(address: string): ReplicaStatus {
    const link = this.link(address)
    return {address, mode: link?.mode ?? 'ERR', reason: (link?.failure ?? this.#rejected.get(address))?.message}
  }

  /** Its place in the volume. It has none before it takes part. */
  link(address: string): ReplicaLink | undefined {
    return this.#volume.replicas.find(one => one.address === address)
  }

  /** Its control service. */
  control(address: string): ReplicaControl {
    return this.#controls.get(address)!
  }

  /** It could not be used. */
  reject(address: string, reason: LonghornError): void {
    this.#rejected.set(address, reason)
  }

  /** It can be used, whatever was wrong with it before. */
  accept(address: string): void {
    this.#rejected.delete(address)
  }

  /**
   * One that is new, or comes back. It gets a new connection: the one there is may be waiting to be tried again, and whoever adds it knows
   * that there is a replica now.
   */
  add(address: string): void {
    this.#controls.get(address)?.disconnect()
    this.#controls.set(address, new ReplicaControl(address, this.#volume.name))
  }

  /** See Engine.removeReplica(). `served`: a frontend is up. In turn. */
  async remove(address: string, served: boolean): Promise<void> {
    const control = this.#controls.get(address)
    if (control === undefined) return
    const link = this.link(address)
    // One that failed may belong to another engine by now: only what this one has in use, or has set aside itself, is closed.
    const close = link !== undefined && (link.mode !== 'ERR' || link.failure === SET_ASIDE)
    if (link !== undefined) {
      if (served) this.#refuseLast(link, 'removed')
      this.#volume.removeReplica(link, REMOVED)
    }
    this.#controls.delete(address)
    this.#rejected.delete(address)
    if (close) {
      await control.close().catch((error: unknown) => this.#log.warn({replica: address, reason: messageOf(error)}, 'a replica that was removed could not be closed'))
    }
    control.disconnect()
    this.#log.info({replica: address}, 'replica removed')
  }

  /** See Engine.setAside(). In turn. */
  setAside(address: string): void {
    const link = this.link(address)
    if (link === undefined) {
      if (this.#rejected.has(address)) return
      throw unknownReplica(address)
    }
    this.#refuseLast(link, 'set to ERR')
    this.#volume.fail(link, SET_ASIDE)
  }

  /** Ends the connections to all control services. */
  disconnect(): void {
    for (const control of this.#controls.values()) control.disconnect()
  }

  #refuseLast(link: ReplicaLink, what: string): void {
    if (link.mode !== 'RW' || this.#volume.members.some(other => other !== link && other.mode === 'RW')) return
    throw new LonghornError('CONFLICT', `replica ${link.address} is the last one of the volume that can be used and cannot be ${what}`)
  }
}

function unknownReplica(address: string): LonghornError {
  return new LonghornError('NOT_FOUND', `this volume has no replica ${JSON.stringify(address.slice(0, 256))}`)
}
