import {LonghornError} from '../lib/errors.js'

/**
 * The names of the files of a replica directory, which are upstream's:
 *
 *     volume.meta                          the volume: size, head, flags
 *     volume-head-NNN.img                  the layer that is written to
 *     volume-snap-NAME.img                 a frozen layer, one per snapshot
 *     X.img.meta                           the parent, date and labels of layer X
 *     X.img.checksum                       the checksum of frozen layer X, optional
 *     revision.counter                     optional
 *     X.tmp, X.checksum..tmp               X being rewritten or replaced, by us or by upstream
 */
export const VOLUME_META = 'volume.meta'
export const REVISION_COUNTER = 'revision.counter'
export const FIRST_HEAD = 'volume-head-000.img'

const HEAD = /^volume-head-(\d+)\.img$/
const SNAPSHOT = /^volume-snap-([^/\0]+)\.img$/
const TEMPORARY = /^(volume\.meta|revision\.counter|volume-(head|snap)-.+\.img(\.(meta|checksum|checksum\.))?)\.tmp$/

/** True for the file name of a head, of whatever number. */
export function isHeadName(file: string): boolean {
  return HEAD.test(file)
}

/** True for the file name of a layer: a head or a snapshot. */
export function isLayerName(file: string): boolean {
  return HEAD.test(file) || SNAPSHOT.test(file)
}

/** True for the temporary name under which one of our small files is rewritten. */
export function isTemporaryName(file: string): boolean {
  return TEMPORARY.test(file)
}

/** The name of the head that comes after `head`: the next number that is free among `entries`. */
export function nextHeadName(head: string, entries: readonly string[]): string {
  for (let number = Number(HEAD.exec(head)?.[1] ?? 0) + 1; ; number++) {
    const file = `volume-head-${`${number}`.padStart(3, '0')}.img`
    if (!entries.includes(file) && !entries.includes(metaFile(file))) return file
  }
}

/** The file that holds snapshot NAME. Throws USAGE for a name that cannot be part of a file name. */
export function snapshotFile(name: string): string {
  const file = `volume-snap-${name}.img`
  if (SNAPSHOT.test(file) && Buffer.byteLength(file) <= 240) return file
  throw new LonghornError('USAGE', `"${name}" cannot be the name of a snapshot: it is empty, too long or contains "/"`)
}

/** The layer that a message means by `name`: a file name, or the name of a snapshot alone. Throws USAGE for what can be neither. */
export function layerFileOf(name: string): string {
  return isLayerName(name) ? name : snapshotFile(name)
}

/** The name of the snapshot that this layer file holds; undefined for a head. */
export function snapshotName(file: string): string | undefined {
  return SNAPSHOT.exec(file)?.[1]
}

export function metaFile(layer: string): string {
  return `${layer}.meta`
}

/** The name under which the file that is to replace a layer waits. */
export function mergedName(layer: string): string {
  return `${layer}.tmp`
}

export function checksumFile(layer: string): string {
  return `${layer}.checksum`
}
