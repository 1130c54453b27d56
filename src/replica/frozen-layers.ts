import {LonghornError} from '../lib/errors.js'
import type {HeadContext} from './head-context.js'
import {readReplicaDirectory, type ReplicaDirectory} from './layer-chain.js'
import {openLayerFile} from './layer-file.js'
import type {LayerMeta} from './layer-meta.js'
import {loadFrozenLayers, type LayerStack} from './layer-stack.js'
import type {OpenDirectory} from './open-directory.js'
import type {RetiredFiles} from './retired-files.js'

/**
 * The layers below the head of an open volume, which purges merge and rebuilds bring and replace on disk: puts what is there
 * now under the head while I/O goes on. The head, and with it every write, stays.
 */
export class FrozenLayers {
  constructor(
    readonly context: HeadContext,
    readonly directory: OpenDirectory,
    readonly retired: RetiredFiles,
  ) {}

  /**
   * What was missing below is here: puts it under the layers that there are. `base` holds the files of those layers, `found` is
   * everything as it is now. From now on it can be read. Rejects when the replica has failed meanwhile.
   */
  async complete(base: LayerStack, found: ReplicaDirectory): Promise<void> {
    const {stack, locks, gate} = this.context
    const ticket = locks.acquire(0, Infinity)
    try {
      if (ticket.ready !== undefined) await ticket.ready
      if (gate.reason !== undefined) throw gate.reason
      stack.complete(base)
      this.directory.contents = found
      await this.directory.changeMeta({rebuilding: false, parent: found.chain.at(-1)!.meta.parent})
    } finally {
      locks.release(ticket)
    }
  }

  /**
   * Takes the layers from the directory again, where other files have been put meanwhile. `complete`: they are all there now, also where
   * volume.meta does not say so yet. Nothing may be prepared for a snapshot. Errors as those of readReplicaDirectory(), with nothing changed.
   */
  async reload(complete: boolean): Promise<void> {
    const {stack, locks} = this.context
    const {path} = this.directory
    const found = await readReplicaDirectory(path)
    const head = found.chain.at(-1)!
    if (head.file !== stack.head.file || found.volume.sizeBytes !== stack.sizeBytes) {
      throw new LonghornError('CORRUPT', `${path}: volume.meta is about another head or size than the open replica`)
    }
    const {files, map} = await loadFrozenLayers(path, found.chain, stack.sizeBytes, stack.scanner)
    const ticket = locks.acquire(0, Infinity)
    try {
      if (ticket.ready !== undefined) await ticket.ready
      const before = stack.replaceBelow(files, map)
      if (complete) stack.setIncomplete(false)
      this.directory.contents = {...found, volume: this.directory.meta}
      this.retired.add(before)
      void this.retired.release(before)
    } finally {
      locks.release(ticket)
    }
  }

  /** Records durably that the layers are not complete, or that they are. When this rejects nothing has changed. NO_SPACE, IO. */
  async setRebuilding(rebuilding: boolean): Promise<void> {
    const {stack} = this.context
    const {directory} = this
    const before = directory.meta
    if (rebuilding) stack.setIncomplete(true)
    try {
      await directory.changeMeta({rebuilding})
    } catch (error) {
      directory.meta = {...directory.meta, rebuilding: before.rebuilding}
      stack.setIncomplete(before.rebuilding)
      throw error
    }
    const {contents} = directory
    directory.contents = {...contents, volume: {...contents.volume, rebuilding}}
    stack.setIncomplete(rebuilding)
  }

  /** Two layers have become one on disk, under the name of `upper`, of `sizeBytes`: goes on with that. */
  merge(lower: string, upper: string, meta: LayerMeta, sizeBytes: number): void {
    const {stack} = this.context
    const merged = new Set(stack.files.filter(({file}) => file === lower || file === upper))
    this.directory.describeLayer(upper, meta)
    if (merged.size === 0) return
    const {contents, path} = this.directory
    const layer = contents.chain.find(({file}) => file === upper)!
    stack.merge([...merged], openLayerFile(path, {...layer, sizeBytes}, false))
    // Reads in flight still use them; closing waits for those.
    this.retired.add(merged)
    void this.retired.release(merged)
  }
}
