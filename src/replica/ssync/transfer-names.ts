import {LonghornError} from '../../lib/errors.js'
import {toFileName} from '../../protocol/grpc/fields.js'
import {isHeadName, isLayerName, snapshotName} from '../layer-names.js'

/** A file of a replica that may travel: the data of a snapshot, or the description of a layer. */
export interface TransferFile {
  readonly name: string
  readonly kind: 'data' | 'meta'
  /** The layer that it belongs to: a file name. */
  readonly layer: string
}

/**
 * What a message means by a file name. USAGE for what leads out of the directory or is another kind of file; the data of a head
 * never travels, as it changes while it is read and is nobody else's to write.
 */
export function toTransferFile(name: string, what: string): TransferFile {
  toFileName(name, what)
  if (snapshotName(name) !== undefined) return {name, kind: 'data', layer: name}
  const layer = name.replace(/\.meta$/, '')
  if (layer !== name && isLayerName(layer)) return {name, kind: 'meta', layer}
  if (isHeadName(name)) throw new LonghornError('USAGE', `${what} is ${name}: the data of a head is not transferred`)
  throw new LonghornError('USAGE', `${what} is ${JSON.stringify(name.slice(0, 64))}: expected volume-snap-NAME.img or the .meta of a layer`)
}
