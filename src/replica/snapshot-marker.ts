import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import type {ReplicaDirectory} from './layer-chain.js'
import {writeLayerMeta} from './layer-meta-file.js'
import {isHeadName} from './layer-names.js'
import {layersToMark, type ReplicaSettings} from './replica-settings.js'
import type {ReplicaVolume} from './replica-volume.js'

/** What marking needs of a replica. */
export interface MarkedReplica {
  readonly directory: string
  readonly settings: ReplicaSettings
  describe(): Promise<{readonly directory: ReplicaDirectory | undefined; readonly volume: ReplicaVolume | undefined}>
  /** See Replica.exclusive(). */
  exclusive<T>(step: (volume: ReplicaVolume | undefined) => Promise<T>): Promise<T>
}

/** Marks snapshots as removed, for a purge to give their space back: because somebody asks for it, or because of an unmap. */
export class SnapshotMarker {
  /** Layers are being marked because of an unmap. */
  #marking = false

  constructor(
    readonly replica: MarkedReplica,
    readonly log: Log,
  ) {}

  /** Marks a snapshot (a file name). One that is not there is success; USAGE for a head. */
  mark(layer: string): Promise<void> {
    return this.replica.exclusive(() => this.#mark(layer))
  }

  /** Space has been given up in the head. What has to be marked is, soon after: the unmap itself does not wait for it. */
  unmapped(volume: ReplicaVolume): void {
    const {replica, log} = this
    if (!replica.settings.markOnUnmap || this.#marking || layersToMark(volume.directory).length === 0) return
    this.#marking = true
    const marked = replica.exclusive(async open => {
      if (open !== volume) return
      for (const layer of layersToMark(volume.directory)) await this.#mark(layer)
    })
    marked.catch((error: unknown) => log.warn({err: error}, 'snapshots could not be marked as removed')).finally(() => (this.#marking = false))
  }

  async #mark(layer: string): Promise<void> {
    if (isHeadName(layer)) throw new LonghornError('USAGE', `${layer} is the head of the volume and no snapshot`)
    const {directory, volume} = await this.replica.describe()
    const found = [...(directory?.chain ?? []), ...(directory?.others ?? [])].find(one => one.file === layer)
    if (found === undefined || found.meta.removed) return
    const meta = {...found.meta, removed: true}
    await writeLayerMeta(this.replica.directory, layer, meta)
    volume?.describeLayer(layer, meta)
    this.log.info({snapshot: layer}, 'snapshot marked as removed')
  }
}
