import {open} from 'node:fs/promises'
import {join} from 'node:path'
import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {punchHole} from '../../lib/sys/fallocate.js'
import {ioFailure} from '../io-failure.js'
import type {Layer} from '../layer-chain.js'
import {writeLayerMeta} from '../layer-meta-file.js'
import {RecentChange} from '../recent-change.js'
import type {ReplicaVolume} from '../replica-volume.js'
import {dataIn, Pace, overlaps, WINDOW_BYTES, type Range} from './copy-data.js'
import {LayerMerge, removeLayerFiles} from './merge-layers.js'
import {nextPurgeStep, type PurgeStep} from './purge-plan.js'

/** How far a purge is. The states are upstream's. */
export interface PurgeStatus {
  readonly state: '' | 'in_progress' | 'complete' | 'error'
  /** Percent. */
  readonly progress: number
  readonly error: string
}

/** Runs a step while nothing else changes the layers: no snapshot, no revert, no close. */
export type Exclusive = <T>(step: () => Promise<T>) => Promise<T>

/** The share of the time that copying may take: the volume is being used meanwhile. */
const SHARE = 0.5
/** The same while it is being written. */
const SHARE_WHEN_BUSY = 0.2

/**
 * Gives back the space of removed snapshots, and of those that the system took for itself, while the volume is being read
 * and written. It can be broken off anywhere, also by kill -9; the next one goes on with what is there.
 */
export class Purge {
  readonly #volume: ReplicaVolume
  readonly #exclusive: Exclusive
  readonly #log: Log
  readonly #abort = new AbortController()
  readonly #pace: Pace
  #status: PurgeStatus = {state: 'in_progress', progress: 0, error: ''}
  #running: Promise<void> = Promise.resolve()

  private constructor(volume: ReplicaVolume, exclusive: Exclusive, log: Log) {
    this.#volume = volume
    const busy = new RecentChange(() => volume.changes)
    this.#pace = new Pace(() => (busy.seen() ? SHARE_WHEN_BUSY : SHARE), this.#abort.signal)
    this.#exclusive = exclusive
    this.#log = log
  }

  static start(volume: ReplicaVolume, exclusive: Exclusive, log: Log): Purge {
    const purge = new Purge(volume, exclusive, log)
    purge.#running = purge.#run().then(
      () => purge.#end({state: 'complete', progress: 100, error: ''}),
      (error: unknown) => purge.#end({...purge.#status, state: 'error', error: messageOf(error)}),
    )
    return purge
  }

  get status(): PurgeStatus {
    return this.#status
  }

  /** Breaks it off; see ended(). */
  breakOff(): void {
    this.#abort.abort(new LonghornError('INTERRUPTED', 'the purge was broken off'))
  }

  /** Resolves when it has ended, in whatever way. */
  ended(): Promise<void> {
    return this.#running
  }

  #end(status: PurgeStatus): void {
    this.#status = status
    if (status.error === '') this.#log.info('purge finished')
    else this.#log.warn({reason: status.error}, 'purge ended early')
  }

  async #run(): Promise<void> {
    await this.#step(() => this.#markSystemSnapshots())
    const pruned = new Set<string>()
    const todo = this.#layers().filter(({meta}) => meta.removed).length
    for (let done = 0; ; done++) {
      const head = this.#volume.directory.volume.head
      const step = nextPurgeStep(this.#layers().map(({file, meta}) => ({file, parent: meta.parent, removed: meta.removed})), head, pruned)
      if (step === undefined) return
      this.#log.info(step, 'purge: next step')
      await this.#take(step)
      if (step.kind === 'prune') pruned.add(step.layer)
      this.#status = {...this.#status, progress: Math.min(99, Math.floor((100 * (done + 1)) / Math.max(todo, 1)))}
    }
  }

  async #take(step: PurgeStep): Promise<void> {
    const {path} = this.#volume.directory
    try {
      switch (step.kind) {
        case 'remove':
          await this.#step(async () => {
            await removeLayerFiles(path, step.layer, this.#volume.disk)
            this.#volume.forgetLayer(step.layer)
          })
          return
        case 'merge':
          await this.#merge(path, step.lower, step.upper)
          return
        case 'prune':
          await this.#prune(path, step.layer)
      }
    } catch (error) {
      if (isKind(error, 'INTERRUPTED')) throw error
      if (isKind(error, 'CORRUPT')) throw this.#volume.condemn(error)
      throw ioFailure(`purging ${step.kind === 'merge' ? step.lower : step.layer} in ${path}`, error)
    }
  }

  async #markSystemSnapshots(): Promise<void> {
    const {directory} = this.#volume
    for (const {file, meta} of this.#layers()) {
      if (meta.userCreated || meta.removed || file === directory.volume.head) continue
      const removed = {...meta, removed: true}
      await writeLayerMeta(directory.path, file, removed, this.#volume.disk)
      this.#volume.describeLayer(file, removed)
    }
  }

  async #merge(path: string, lower: string, upper: string): Promise<void> {
    const {scanner, disk} = this.#volume
    const merge = await LayerMerge.plan(path, this.#layer(lower), this.#layer(upper), scanner, disk)
    await merge.copy(this.#pace, () => undefined)
    await this.#step(async () => {
      const meta = await merge.commit()
      this.#volume.mergeLayers(lower, upper, meta, await merge.sizeBytes())
      await merge.removeLower()
      this.#volume.forgetLayer(lower)
    })
  }

  /** The head's blocks are on the disk, and nobody reads what they hide, before that goes. */
  async #prune(path: string, layer: string): Promise<void> {
    await using file = await open(join(path, layer), 'r+')
    const {size} = await file.stat()
    for (let offset = 0; offset < size; offset += WINDOW_BYTES) {
      const window: Range = {offset, length: Math.min(WINDOW_BYTES, size - offset)}
      const hidden = overlaps(dataIn(this.#volume.scanner, file.fd, window), this.#volume.heldByHead(window))
      if (hidden.length === 0) continue
      await this.#volume.flush()
      await this.#volume.readsSettled()
      for (const range of hidden) await this.#pace.run(() => punchHole(file.fd, range.offset, range.length))
    }
    await file.datasync()
  }

  #step<T>(step: () => Promise<T>): Promise<T> {
    return this.#exclusive(() => {
      this.#abort.signal.throwIfAborted()
      return step()
    })
  }

  #layers(): Layer[] {
    const {chain, others} = this.#volume.directory
    return [...chain, ...others]
  }

  #layer(file: string): Layer {
    return this.#layers().find(layer => layer.file === file)!
  }
}
