import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import type {ChangedRegions} from './changed-regions.js'
import type {RecordGate} from './record-gate.js'
import type {ReplicaLink} from './replica-link.js'
import {ReplicaSweep} from './replica-sweep.js'

/** Each has a bit of its own in a small integer. */
export const MOST_REPLICAS = 30

export interface VolumeLinksOptions {
  /** A replica that does not answer for this long is dropped; the last one gets twice as long. */
  readonly replicaTimeoutMs: number
  /** Told of those that are dropped. */
  readonly changed: ChangedRegions
  readonly recording: RecordGate
  readonly log: Log
  /** Called after a replica has been dropped. */
  readonly onFailed: (link: ReplicaLink, reason: Error) => void
}

/** The links of a volume to its replicas: which there are, who takes part in what, and how one gets out of use. */
export class VolumeLinks {
  /** Also those that are out of use until they are removed. */
  readonly all: ReplicaLink[] = []
  /** RW replicas, and those that take writes (RW and WO). Every request looks at them, so they are kept as they are until somebody comes or goes; set here only. */
  readers: readonly ReplicaLink[] = []
  writers: readonly ReplicaLink[] = []
  readonly #options: VolumeLinksOptions
  readonly #sweep = new ReplicaSweep(() => this.writers)
  #closed = false

  constructor(options: VolumeLinksOptions) {
    this.#options = options
    this.#sweep.start()
  }

  /** The next free bit for a link. Throws USAGE when there are MOST_REPLICAS already. */
  nextBit(): number {
    for (let shift = 0; shift < MOST_REPLICAS; shift++) {
      if (!this.all.some(link => link.bit === 1 << shift)) return 1 << shift
    }
    throw new LonghornError('USAGE', `a volume cannot have more than ${MOST_REPLICAS} replicas`)
  }

  add(link: ReplicaLink): void {
    this.all.push(link)
    this.#modesChanged()
  }

  /** See Volume.promote(). */
  promote(link: ReplicaLink): void {
    if (link.mode !== 'WO') return
    link.mode = 'RW'
    this.#modesChanged()
    this.#options.log.info({replica: link.address, readers: this.readers.length}, 'replica is up to date')
  }

  /** See Volume.removeReplica(). */
  remove(link: ReplicaLink, reason: Error): void {
    this.fail(link, reason)
    const at = this.all.indexOf(link)
    if (at !== -1) this.all.splice(at, 1)
  }

  /** See Volume.fail(). */
  fail(link: ReplicaLink, reason: Error): void {
    if (link.mode === 'ERR' || this.#closed) return
    const {mode} = link
    link.drop(reason)
    if (!this.all.includes(link)) {
      // It was never in use.
      link.client.close(reason)
      return
    }
    const {changed, recording, log, onFailed} = this.#options
    if (mode === 'RW') changed.dropped(link.name)
    this.#modesChanged()
    if (link.member) recording.begin()
    log.error({replica: link.address, reason: reason.message, left: this.readers.length}, 'replica dropped')
    onFailed(link, reason)
    link.client.close(reason)
  }

  /** Nothing is asked of a replica. */
  get areQuiet(): boolean {
    return this.writers.every(link => link.client.isQuiet)
  }

  /** See Volume.detach(). */
  detach(): void {
    this.#sweep.stop()
    for (const link of this.writers) link.client.detach()
  }

  /** Ends detach(). */
  reattach(): void {
    this.#sweep.start()
    for (const link of this.writers) link.client.reattach()
  }

  /** Ends the connections: what is in flight there fails, and nobody is dropped for it. Safe twice. */
  close(reason: Error): void {
    if (this.#closed) return
    this.#closed = true
    this.#sweep.stop()
    const links = this.all.filter(link => link.mode !== 'ERR')
    this.readers = []
    this.writers = []
    for (const link of links) link.client.close(reason)
  }

  #modesChanged(): void {
    this.readers = this.all.filter(link => link.mode === 'RW')
    this.writers = this.all.filter(link => link.mode !== 'ERR')
    const factor = this.readers.length === 1 ? 2 : 1
    for (const link of this.writers) link.client.timeoutMs = this.#options.replicaTimeoutMs * factor
  }
}
