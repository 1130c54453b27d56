import {constants} from 'node:fs'
import {open, type FileHandle} from 'node:fs/promises'
import {join} from 'node:path'
import {LonghornError} from '../../lib/errors.js'
import {scannerFor} from '../../lib/sys/file-extents.js'
import {BLOCK_BYTES, BLOCKS_PER_REGION, REGION_BYTES} from '../../protocol/scrub-units.js'
import type {Layer} from '../layer-chain.js'
import {isHeadName} from '../layer-names.js'
import {dataIn} from '../purge/copy-data.js'
import type {ReplicaVolume} from '../replica-volume.js'

/** The layers of an open replica as files, each opened when it is first needed. Whoever makes it disposes it. */
export class LayerFiles implements AsyncDisposable {
  readonly #open = new Map<string, FileHandle>()
  readonly #layers: ReadonlyMap<string, Layer>

  constructor(readonly volume: ReplicaVolume) {
    const {chain, others} = volume.directory
    this.#layers = new Map([...others, ...chain].map(layer => [layer.file, layer]))
  }

  /** The layer of that file name. NOT_FOUND. */
  get(file: string): Layer {
    const layer = this.#layers.get(file)
    if (layer !== undefined) return layer
    throw new LonghornError('NOT_FOUND', `the replica has no layer ${JSON.stringify(file.slice(0, 256))}`)
  }

  /** As get(), of a layer that is never written. USAGE for a head. */
  getFrozen(file: string): Layer {
    if (isHeadName(file)) throw new LonghornError('USAGE', `${file} is the head of the volume: only snapshots can be compared`)
    return this.get(file)
  }

  children(of: string): Layer[] {
    return [...this.#layers.values()].filter(({meta}) => meta.parent === of)
  }

  /** Its data file, for reading. Throws Node's errors. */
  async file(layer: string): Promise<FileHandle> {
    const known = this.#open.get(layer)
    if (known !== undefined) return known
    const file = await open(join(this.volume.directory.path, layer), constants.O_RDONLY)
    this.#open.set(layer, file)
    // Else asking for the extents would wait for the disk, in the event loop.
    await file.datasync()
    return file
  }

  /** 1 for each block of a region that a layer holds. */
  async held(layer: string, region: number): Promise<Uint8Array> {
    const held = new Uint8Array(BLOCKS_PER_REGION)
    const start = region * REGION_BYTES
    const mark = (offset: number, length: number): void => {
      held.fill(1, Math.floor((offset - start) / BLOCK_BYTES), Math.ceil((offset + length - start) / BLOCK_BYTES))
    }
    if (layer === this.volume.directory.volume.head || isHeadName(layer)) {
      // Of the file the disk may not know everything yet.
      for (const {offset, length} of this.volume.heldByHead({offset: start, length: REGION_BYTES})) mark(offset, length)
      return held
    }
    const file = await this.file(layer)
    for (const {offset, length} of dataIn(scannerFor(file.fd), file.fd, {offset: start, length: REGION_BYTES})) mark(offset, length)
    return held
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#open.values()) await file.close()
  }
}

/** Reads up to the end of the file; what lies behind it is zeros. Throws Node's errors. */
export async function readPadded(file: FileHandle, into: Buffer, offset: number): Promise<void> {
  let done = 0
  while (done < into.length) {
    const {bytesRead} = await file.read(into, done, into.length - done, offset + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  into.fill(0, done)
}
