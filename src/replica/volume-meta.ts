import {isHeadName, isLayerName} from './layer-names.js'
import {goJsonLine, MetaFields} from './meta-json.js'

/**
 * `volume.meta`: one JSON object and a newline. Written with exactly these keys in this order:
 * Size, Head, Dirty, Rebuilding, Error, Parent, SectorSize, BackingFilePath, Encrypted.
 */
export interface VolumeMeta {
  /** Size of the volume in bytes, a multiple of 512. */
  readonly sizeBytes: number
  /** File name of the head, the root of the chain. */
  readonly head: string
  /** Opened and not closed since. */
  readonly dirty: boolean
  /** A rebuild of this replica has begun and not finished; its layers are not complete. */
  readonly rebuilding: boolean
  /** Why this replica must not be used, or ''. Stays until someone repairs it. */
  readonly error: string
  /** File name of the head's parent, or ''. For information: the chain follows the .meta files of the layers. */
  readonly parent: string
  readonly sectorBytes: number
  /** Path of the backing file below the oldest layer, or ''. */
  readonly backingFile: string
  readonly encrypted: boolean
}

/** The unit of a volume's size. */
export const SECTOR_BYTES = 512

/** The description of a new volume whose only layer is `head`. */
export function newVolumeMeta(sizeBytes: number, head: string): VolumeMeta {
  return {
    sizeBytes,
    head,
    dirty: false,
    rebuilding: false,
    error: '',
    parent: '',
    sectorBytes: SECTOR_BYTES,
    backingFile: '',
    encrypted: false,
  }
}

/** Reads the text of a volume.meta. Throws CORRUPT, naming `path`, when a value makes no sense. */
export function parseVolumeMeta(text: string, path: string): VolumeMeta {
  const fields = new MetaFields(text, path)
  const sizeBytes = fields.count('Size')
  if (sizeBytes % SECTOR_BYTES !== 0) throw fields.wrong('Size', sizeBytes, `a multiple of ${SECTOR_BYTES}`)
  const head = fields.text('Head')
  if (!isHeadName(head)) throw fields.wrong('Head', head, 'volume-head-NNN.img')
  const parent = fields.text('Parent')
  if (parent !== '' && !isLayerName(parent)) throw fields.wrong('Parent', parent, 'volume-snap-NAME.img or nothing')
  const sectorBytes = fields.count('SectorSize')
  if (sectorBytes % SECTOR_BYTES !== 0 || sectorBytes > 4096) throw fields.wrong('SectorSize', sectorBytes, `${SECTOR_BYTES}`)
  return {
    sizeBytes,
    head,
    dirty: fields.flag('Dirty'),
    rebuilding: fields.flag('Rebuilding'),
    error: fields.text('Error'),
    parent,
    sectorBytes: sectorBytes === 0 ? SECTOR_BYTES : sectorBytes,
    // The key's name until upstream 1.1.0.
    backingFile: fields.has('BackingFilePath') ? fields.text('BackingFilePath') : fields.text('BackingFileName'),
    encrypted: fields.flag('Encrypted'),
  }
}

export function formatVolumeMeta(meta: VolumeMeta): string {
  return goJsonLine({
    Size: meta.sizeBytes,
    Head: meta.head,
    Dirty: meta.dirty,
    Rebuilding: meta.rebuilding,
    Error: meta.error,
    Parent: meta.parent,
    SectorSize: meta.sectorBytes,
    BackingFilePath: meta.backingFile,
    Encrypted: meta.encrypted,
  })
}

/** The text as this program writes it: with a space before the last newline, which nothing that rewrites the file puts there. */
export function sealedVolumeMeta(meta: VolumeMeta): string {
  return formatVolumeMeta(meta).replace(/\n$/, ' \n')
}

/** True when this program was the last to write the text: what it remembers of the replica elsewhere holds. */
export function isSealed(text: string): boolean {
  return text.endsWith(' \n')
}
