import {join} from 'node:path'
import {Cleanup} from '../lib/cleanup.js'
import {LonghornError} from '../lib/errors.js'
import {realDisk, type DiskSteps} from './disk-steps.js'
import {ioFailure} from './io-failure.js'
import {listDirectory, readReplicaDirectory} from './layer-chain.js'
import {formatLayerMeta, newHeadMeta} from './layer-meta.js'
import {isHeadName, metaFile, nextHeadName} from './layer-names.js'
import {removeOldNames} from './snapshot.js'
import {writeVolumeMeta} from './volume-meta-file.js'

/**
 * Makes the volume in `path`, which must be closed, what it was when `layer` (a file name) was frozen: a new empty head on
 * top of it. What was written since the newest snapshot is lost; the snapshots after `layer` stay as a branch of their own.
 * Replacing volume.meta commits. NOT_FOUND, with nothing changed, when there is no such snapshot or it is marked as removed.
 */
export async function revertDirectory(path: string, layer: string, created: string, disk: DiskSteps = realDisk): Promise<void> {
  const {volume, chain, others} = await readReplicaDirectory(path)
  const target = [...chain, ...others].find(one => one.file === layer)
  if (target === undefined || isHeadName(layer)) throw new LonghornError('NOT_FOUND', `${path} has no snapshot ${layer}`)
  if (target.meta.removed) throw new LonghornError('NOT_FOUND', `snapshot ${layer} in ${path} is marked as removed`)
  const head = nextHeadName(volume.head, await listDirectory(path))
  try {
    await using undo = new Cleanup()
    // What cannot be removed now is removed by the next open: an empty head that is not the head.
    for (const file of [head, metaFile(head)]) undo.defer(() => disk.remove(join(path, file)).catch(() => undefined))
    await disk.createSparse(join(path, head), volume.sizeBytes, 0o644)
    await disk.writeSynced(join(path, metaFile(head)), formatLayerMeta(newHeadMeta(head, layer, new Date(created))), 0o644)
    await disk.syncDirectory(path)
    await writeVolumeMeta(path, {...volume, head, parent: layer, dirty: true}, disk)
    undo.move()
    await removeOldNames(path, volume.head, disk)
    await disk.syncDirectory(path)
  } catch (error) {
    throw ioFailure(`reverting ${path} to ${layer}`, error)
  }
}
