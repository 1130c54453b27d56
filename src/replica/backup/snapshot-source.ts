import {basename} from 'node:path'
import type {BaseSnapshot, BlockSource, Range} from '../../backup/block-source.js'
import {LonghornError} from '../../lib/errors.js'
import {readReplicaDirectory} from '../layer-chain.js'
import {isHeadName, snapshotFile} from '../layer-names.js'
import {openVolumeView, type VolumeView} from '../open-replica.js'
import {BLOCK_BYTES, NO_LAYER} from '../sector-map.js'

/** A snapshot of a replica, to be backed up. Its layers must not be purged meanwhile. */
export class SnapshotSource implements BlockSource, AsyncDisposable {
  readonly #view: VolumeView
  /** When each layer was made, by file name. */
  readonly #created: ReadonlyMap<string, string>

  private constructor(view: VolumeView, created: ReadonlyMap<string, string>) {
    this.#view = view
    this.#created = created
  }

  /** NOT_FOUND when the replica has no such snapshot, UNSUPPORTED for one that stands on a backing image. */
  static async open(directory: string, snapshot: string): Promise<SnapshotSource> {
    const layer = snapshotFile(snapshot)
    const {chain, others, volume} = await readReplicaDirectory(directory)
    const layers = [...chain, ...others]
    if (isHeadName(layer) || !layers.some(({file}) => file === layer)) throw new LonghornError('NOT_FOUND', `snapshot disk ${layer} not found on replica in ${directory}`, {snapshot})
    if (volume.backingFile !== '') throw new LonghornError('UNSUPPORTED', `the volume in ${directory} has a backing image, which backups cannot leave out yet`)
    const view = await openVolumeView(directory, layer)
    return new SnapshotSource(view, new Map(layers.map(({file, meta}) => [file, meta.created])))
  }

  get sizeBytes(): number {
    return this.#view.sizeBytes
  }

  async read(target: Buffer, length: number, offset: number): Promise<void> {
    await this.#view.reader.read(target, 0, length, offset)
  }

  allocated(): Iterable<Range> {
    return this.#heldFrom(NO_LAYER + 1)
  }

  changedSince({name, backedUpAt}: BaseSnapshot): Iterable<Range> | undefined {
    const file = snapshotFile(name)
    // Number n of the map is the n-th file; the last one is the snapshot itself.
    const base = this.#view.reader.stack.files.slice(0, -1).findIndex(({path}) => basename(path) === file) + 1
    const created = Date.parse(this.#created.get(file) ?? '')
    // One that was removed and taken again under the same name is another one. Without a time nothing is certain.
    if (base === 0 || !(created <= Date.parse(backedUpAt))) return undefined
    return this.#heldFrom(base + 1)
  }

  close(): Promise<void> {
    return this.#view.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** What the layers from this number on hold. */
  *#heldFrom(first: number): Generator<Range> {
    const {reader, sizeBytes} = this.#view
    for (let offset = 0; offset < sizeBytes; ) {
      const length = reader.runBytes(offset, sizeBytes - offset)
      if (reader.stack.map.lookup(Math.floor(offset / BLOCK_BYTES)) >= first) yield {offset, length}
      offset += length
    }
  }
}
