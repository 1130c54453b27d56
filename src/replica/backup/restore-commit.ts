import {rename} from 'node:fs/promises'
import {join} from 'node:path'
import {LonghornError} from '../../lib/errors.js'
import {realDisk} from '../disk-steps.js'
import {ioFailure} from '../io-failure.js'
import {newHeadMeta} from '../layer-meta.js'
import {writeLayerMeta} from '../layer-meta-file.js'
import {removeLayerFiles} from '../purge/merge-layers.js'
import type {Replica} from '../replica.js'
import type {ReplicaVolume} from '../replica-volume.js'
import {PARTIAL_FILE, unwrittenLayers} from './restore-record.js'
import type {RestorePlan} from './restore-plan.js'

/** On the layer that a backup was restored to: its name. */
export const RESTORED_FROM = 'longhorn.io/restored-backup'

/**
 * What was fetched becomes a layer, and the replica reverts to it: the rename of volume.meta in there is the commit. Before it the volume is what it was.
 * The layer that the backup before came in is marked as removed. CONFLICT when the replica was closed, or written to, meanwhile.
 */
export async function putInPlace(replica: Replica, plan: RestorePlan): Promise<void> {
  const {layer} = plan
  const now = new Date()
  const before = await replica.exclusive(async volume => {
    if (volume !== plan.volume) throw new LonghornError('CONFLICT', `the replica in ${replica.directory} was closed or rebuilt meanwhile: restore again`)
    checkUntouched(volume, plan)
    const restored = replica.restores.restored(volume.directory)
    await makeLayer(replica.directory, plan, now)
    return restored
  })
  await replica.revert(layer, now.toISOString())
  await replica.restores.complete()
  if (before !== undefined) await replica.markRemoved(before.layer)
}

function checkUntouched(volume: ReplicaVolume, {layer, parent}: RestorePlan): void {
  if (volume.directory.chain.some(({file}) => file === layer)) throw new LonghornError('CONFLICT', `${volume.directory.path} has a layer ${layer} already`)
  if (parent !== '' && unwrittenLayers(volume)[0] !== parent) throw new LonghornError('CONFLICT', `the replica in ${volume.directory.path} was written to during the restore: restore again`)
}

async function makeLayer(directory: string, {layer, parent, backup}: RestorePlan, now: Date): Promise<void> {
  try {
    // Of an attempt that ended right here.
    await removeLayerFiles(directory, layer, realDisk)
    // Kept by purges, as a user's; what is described and not there yet an open takes away.
    await writeLayerMeta(directory, layer, {...newHeadMeta(layer, parent, now), userCreated: true, labels: {[RESTORED_FROM]: backup}})
    await rename(join(directory, PARTIAL_FILE), join(directory, layer))
    await realDisk.syncDirectory(directory)
  } catch (error) {
    throw ioFailure(`making ${layer} in ${directory}`, error)
  }
}
