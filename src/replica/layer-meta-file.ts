import {join} from 'node:path'
import {realDisk, type DiskSteps} from './disk-steps.js'
import {replaceFile} from './durable-file.js'
import {ioFailure} from './io-failure.js'
import {formatLayerMeta, type LayerMeta} from './layer-meta.js'
import {metaFile} from './layer-names.js'

/** Replaces the description of a layer durably. NO_SPACE on a full disk, where the old one then still is. */
export async function writeLayerMeta(directory: string, layer: string, meta: LayerMeta, disk: DiskSteps = realDisk): Promise<void> {
  const path = join(directory, metaFile(layer))
  try {
    await replaceFile(path, formatLayerMeta(meta), 0o644, disk)
  } catch (error) {
    throw ioFailure(`writing ${path}`, error)
  }
}
