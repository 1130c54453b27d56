import {LonghornError} from '../lib/errors.js'
import type {CurrentPurge} from './purge/current-purge.js'

/** Who uses files of the frozen layers of a replica right now. What changes these files, such as a purge, and their users keep each other away. */
export class LayerUse {
  /** What is reading or replacing files of layers. */
  readonly transfers = new Set<string>()
  /** Layers that other replicas are reading. */
  #exports = 0

  constructor(
    readonly directory: string,
    readonly purge: CurrentPurge,
  ) {}

  /** Keeps purges away until the function that is returned is called. BUSY while there is one. `what` uses the layers, for the error of the next one. */
  begin(what: string): () => void {
    if (this.purge.isRunning) throw new LonghornError('BUSY', `the replica in ${this.directory} is purging snapshots: try again when that is done`)
    this.transfers.add(what)
    return () => void this.transfers.delete(what)
  }

  /** Another replica begins to read a layer; a purge that is running is the caller's business. To be followed by one endExport(). */
  beginExport(): void {
    this.#exports += 1
  }

  endExport(): void {
    this.#exports -= 1
  }

  /** Throws BUSY unless layers may be changed. `rebuilding`: they are being fetched. */
  refuseChange(rebuilding: boolean): void {
    const [transfer] = this.transfers
    if (transfer !== undefined) throw new LonghornError('BUSY', `the replica in ${this.directory} is busy with ${transfer}: try again when that is done`)
    if (rebuilding) throw new LonghornError('BUSY', `the replica in ${this.directory} is being rebuilt`)
    if (this.#exports > 0) throw new LonghornError('BUSY', `the layers in ${this.directory} are being read to rebuild another replica`)
    if (this.purge.isRunning) throw new LonghornError('BUSY', `the replica in ${this.directory} is already purging`)
  }
}
