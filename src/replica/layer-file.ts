import {closeSync, constants, openSync} from 'node:fs'
import {join} from 'node:path'
import type {Layer} from './layer-chain.js'

/** The open data file of one layer. */
export interface LayerFile {
  /** File name, e.g. `volume-snap-a.img`. */
  readonly file: string
  readonly path: string
  /** Open for reading, and for writing only in a head that is written to: no bug of ours can then change a snapshot. */
  readonly fd: number
  /** Reads past this end yield zeros: layers from before an expansion are smaller than the volume. */
  readonly sizeBytes: number
  close(): void
}

/** Opens the data file of a layer, which must exist. */
export function openLayerFile(directory: string, layer: Layer, writable: boolean): LayerFile {
  const path = join(directory, layer.file)
  const fd = openSync(path, writable ? constants.O_RDWR : constants.O_RDONLY)
  return {
    file: layer.file,
    path,
    fd,
    sizeBytes: layer.sizeBytes,
    close() {
      closeSync(fd)
    },
  }
}
