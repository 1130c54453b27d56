import type {DiskSteps} from './disk-steps.js'
import type {Layer, ReplicaDirectory} from './layer-chain.js'
import type {LayerMeta} from './layer-meta.js'
import {checksumFile, metaFile} from './layer-names.js'
import type {VolumeMeta} from './volume-meta.js'
import {writeVolumeMeta} from './volume-meta-file.js'

/** The directory of an open replica: what it holds now and what volume.meta says, kept up as they change. */
export class OpenDirectory {
  /** What volume.meta says now. */
  meta: VolumeMeta
  /** The last rewrite of volume.meta; rewrites wait for each other. */
  #metaWritten: Promise<void> = Promise.resolve()

  constructor(
    /** As it is, but for the sizes of the layers, which are as they were found. */
    public contents: ReplicaDirectory,
    /** How files in it are changed. */
    readonly disk: DiskSteps,
  ) {
    this.meta = contents.volume
  }

  get path(): string {
    return this.contents.path
  }

  /** Takes note of what the .meta of a layer says from now on. */
  describeLayer(file: string, meta: LayerMeta): void {
    const changed = (layer: Layer): Layer => (layer.file === file ? {...layer, meta} : layer)
    const {contents} = this
    this.contents = {...contents, chain: contents.chain.map(changed), others: contents.others.map(changed)}
  }

  /** Takes note that a layer is gone from the disk. */
  forgetLayer(gone: string): void {
    const {contents} = this
    const names = [gone, metaFile(gone), checksumFile(gone)]
    const left = (layers: readonly Layer[]): Layer[] => layers.filter(({file}) => file !== gone)
    this.contents = {...contents, chain: left(contents.chain), others: left(contents.others), entries: contents.entries.filter(name => !names.includes(name))}
  }

  /** Changes what volume.meta says, durably. When this rejects the file says what it said, and `meta` what it should. NO_SPACE, IO. */
  changeMeta(change: Partial<VolumeMeta>): Promise<void> {
    this.meta = {...this.meta, ...change}
    return this.replaceMeta(() => writeVolumeMeta(this.path, this.meta, this.disk))
  }

  /** Runs what replaces the file volume.meta when the replacements before are done. */
  replaceMeta(replace: () => Promise<void>): Promise<void> {
    const written = this.#metaWritten.then(replace)
    this.#metaWritten = written.catch(() => undefined)
    return written
  }

  /** Resolves when volume.meta is not being replaced any more. */
  async metaSettled(): Promise<void> {
    await this.#metaWritten
  }
}
