import {isKind, LonghornError} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import type {Layer} from '../layer-chain.js'
import {isHeadName} from '../layer-names.js'
import type {LayerMeta} from '../layer-meta.js'
import {writeLayerMeta} from '../layer-meta-file.js'
import {removeLayerFiles} from '../purge/merge-layers.js'
import {ioFailure} from '../io-failure.js'
import type {Replica} from '../replica.js'

/**
 * The replica as the target of a rebuild that upstream's engine directs: it has got a snapshot and takes writes in the head above that, while
 * the layers below are replaced; then it is reloaded and declared complete.
 *
 * All the time volume.meta says Rebuilding. Upstream's engine takes that back on its own before it tries a rebuild again, and also when the
 * replica is the only one that a volume is started with; the layers may then be anything. So it stays until all files
 * have come, and engines refuse the replica. A process that dies forgets that they have: the next rebuild compares them again.
 */
export class RebuildTarget {
  readonly #replica: Replica
  readonly #log: Log
  #complete = false

  constructor(replica: Replica, log: Log) {
    this.#replica = replica
    this.#log = log
  }

  /** Whether all layers have been received since the rebuild began, durably. Not any more as soon as one of them is to be replaced again. */
  setComplete(complete: boolean): void {
    this.#complete = complete
  }

  /** Begins or ends it, unless an engine of ours does that by itself; ending one that is not complete leaves the replica as it is. CONFLICT when the replica is not open. */
  set(rebuilding: boolean): Promise<void> {
    return this.#replica.exclusive(async volume => {
      if (this.#replica.directed) return
      if (volume === undefined) throw new LonghornError('CONFLICT', `the replica in ${this.#replica.directory} is not open`)
      if (!rebuilding && volume.meta.rebuilding && !this.#complete) {
        this.#log.warn('the layers have not all been received: the replica goes on as one that is being rebuilt')
        return
      }
      this.#complete = false
      if (rebuilding || volume.meta.rebuilding) await volume.setRebuilding(rebuilding)
      this.#log.info({rebuilding}, rebuilding ? 'a rebuild begins' : 'the rebuild is complete')
    })
  }

  /**
   * Takes the layers below the head from the directory again; success when it is not open. See ReplicaVolume.reload(). Once all are here, engines
   * read from it and write parts of blocks before they get to saying that the rebuild is over.
   */
  reload(): Promise<void> {
    return this.#replica.exclusive(async volume => {
      if (volume === undefined || this.#replica.directed) return
      await volume.reload(this.#complete || !volume.meta.rebuilding)
      this.#log.info({layers: volume.directory.chain.length}, 'reloaded')
    })
  }

  /**
   * Removes a layer (a file name) that the other replicas do not have; one that is not there is success. Of a replica that is not being
   * rebuilt only one that nothing stands on: its data would be missed otherwise, and purging is what is wanted.
   */
  removeLayer(layer: string): Promise<void> {
    return this.#replica.changeLayers(async volume => {
      if (isHeadName(layer)) throw new LonghornError('USAGE', `${layer} is the head of the volume and cannot be removed`)
      const {path, chain, others} = volume.directory
      const layers = [...chain, ...others]
      const gone = layers.find(({file}) => file === layer)
      if (gone === undefined) return
      const children = layers.filter(({meta}) => meta.parent === layer)
      if (children.length > 0 && !volume.meta.rebuilding) {
        throw new LonghornError('CONFLICT', `${layer} cannot be removed: another layer stands on it (${children[0]!.file}); mark it as removed and purge`)
      }
      try {
        for (const child of children) {
          const meta = {...child.meta, parent: gone.meta.parent}
          await writeLayerMeta(path, child.file, meta)
          volume.describeLayer(child.file, meta)
        }
        await removeLayerFiles(path, layer, volume.disk)
      } catch (error) {
        throw ioFailure(`removing ${layer} from ${path}`, error)
      }
      volume.forgetLayer(layer)
      this.#log.info({layer}, 'layer removed')
    })
  }

  /** Replaces the description of one layer. CORRUPT when it stands on a layer that is not here. */
  describeLayer(layer: string, meta: LayerMeta): Promise<void> {
    return this.#replica.exclusive(async volume => {
      const layers = await this.#layers()
      if (meta.parent !== '' && !layers.some(({file}) => file === meta.parent)) {
        throw new LonghornError('CORRUPT', `the received description of ${layer} stands on ${meta.parent}, which is not here`)
      }
      await writeLayerMeta(this.#replica.directory, layer, meta)
      volume?.describeLayer(layer, meta)
    })
  }

  /**
   * Replaces the descriptions of layers whose data has come, those below first: at every moment each layer stands on one that is here.
   * CORRUPT, with nothing changed, when they do not make chains.
   */
  describeLayers(metas: ReadonlyMap<string, LayerMeta>): Promise<void> {
    return this.#replica.exclusive(async () => {
      for (const layer of lowestFirst(metas)) await writeLayerMeta(this.#replica.directory, layer, metas.get(layer)!)
    })
  }

  /** Throws CONFLICT unless a rebuild has been begun. */
  async check(): Promise<void> {
    const {directory, volume} = await this.#replica.describe()
    if (volume !== undefined && directory?.volume.rebuilding === true) return
    throw new LonghornError('CONFLICT', `the replica in ${this.#replica.directory} is not being rebuilt: RebuildingSet comes first`)
  }

  /** Throws CONFLICT when `layer` is one that the replica is made of, unless it is being rebuilt. */
  async checkMayReplace(layer: string): Promise<void> {
    const {directory, volume} = await this.#replica.describe()
    if (volume !== undefined && directory?.volume.rebuilding === true) return
    const layers = await this.#layers()
    if (layers.some(({file}) => file === layer)) throw new LonghornError('CONFLICT', `${layer} is part of the replica in ${this.#replica.directory}, which is not being rebuilt`)
  }

  async #layers(): Promise<readonly Layer[]> {
    try {
      const {directory} = await this.#replica.describe()
      return [...(directory?.chain ?? []), ...(directory?.others ?? [])]
    } catch (error) {
      if (isKind(error, 'NOT_FOUND')) return []
      throw error
    }
  }
}

function lowestFirst(metas: ReadonlyMap<string, LayerMeta>): string[] {
  const order = new Set<string>()
  for (const layer of metas.keys()) {
    const path: string[] = []
    for (let file = layer; file !== '' && !order.has(file); file = metas.get(file)!.parent) {
      if (!metas.has(file)) throw new LonghornError('CORRUPT', `the received description of ${path.at(-1)} stands on ${file}, which was not sent`)
      if (path.includes(file)) throw new LonghornError('CORRUPT', `the received description of ${file} makes it its own ancestor`)
      path.push(file)
    }
    for (const file of path.reverse()) order.add(file)
  }
  return [...order]
}
