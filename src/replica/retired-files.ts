import type {LayerFile} from './layer-file.js'
import type {LayerReader} from './layer-reader.js'

/** Open files that are no layers any more, and that reads under way may still use: heads that have become snapshots, and layers that were replaced. */
export class RetiredFiles {
  readonly #files = new Set<LayerFile>()

  constructor(readonly reader: LayerReader) {}

  /** Takes files, to be closed by close() at the latest. */
  add(files: Iterable<LayerFile>): void {
    for (const file of files) this.#files.add(file)
  }

  /** Closes files that were added, when the reads that are under way now are done. Those that are closed already stay so. */
  async release(files: Iterable<LayerFile>): Promise<void> {
    await this.reader.settled()
    for (const file of files) this.#close(file)
  }

  /** Closes all of them. Nothing may be reading. */
  close(): void {
    for (const file of this.#files) this.#close(file)
  }

  #close(file: LayerFile): void {
    if (this.#files.delete(file)) file.close()
  }
}
