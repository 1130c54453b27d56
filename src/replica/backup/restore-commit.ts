import {link, rename} from 'node:fs/promises'
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

/**
 * After putInPlace(): gives back the space of what was there before, and the layer the name that was asked for, where that was in use. Upstream's clients want both to be done when a restore
 * is over. Where the name cannot be had, as a snapshot of somebody stands on the layer that has it, it stays as it is: returns the name that it has.
 */
export async function tidyUp(replica: Replica, {layer}: RestorePlan, wanted: string, signal: AbortSignal): Promise<string> {
  const breakOff = (): void => void replica.breakOffPurge('the restore is ended')
  signal.addEventListener('abort', breakOff)
  try {
    await replica.purge()
    await replica.purgeEnded()
  } finally {
    signal.removeEventListener('abort', breakOff)
  }
  if (layer === wanted || signal.aborted) return layer
  const now = new Date()
  const linked = await replica.exclusive(async volume => {
    const layers = volume === undefined ? [] : [...volume.directory.chain, ...volume.directory.others]
    const meta = layers.find(({file}) => file === layer)?.meta
    if (volume === undefined || meta === undefined || unwrittenLayers(volume)[0] !== layer || layers.some(({file}) => file === wanted)) return false
    await changing(replica.directory, wanted, async () => {
      await removeLayerFiles(replica.directory, wanted, realDisk)
      await writeLayerMeta(replica.directory, wanted, meta)
      await link(join(replica.directory, layer), join(replica.directory, wanted))
      await realDisk.syncDirectory(replica.directory)
    })
    return true
  })
  if (!linked) return layer
  await replica.revert(wanted, now.toISOString())
  await replica.restores.renamed(wanted)
  await replica.exclusive(async volume => {
    await changing(replica.directory, layer, () => removeLayerFiles(replica.directory, layer, realDisk))
    volume?.forgetLayer(layer)
  })
  return wanted
}

function checkUntouched(volume: ReplicaVolume, {layer, parent}: RestorePlan): void {
  if (volume.directory.chain.some(({file}) => file === layer)) throw new LonghornError('CONFLICT', `${volume.directory.path} has a layer ${layer} already`)
  if (parent !== '' && unwrittenLayers(volume)[0] !== parent) throw new LonghornError('CONFLICT', `the replica in ${volume.directory.path} was written to during the restore: restore again`)
}

async function makeLayer(directory: string, {layer, parent, backup}: RestorePlan, now: Date): Promise<void> {
  await changing(directory, layer, async () => {
    // Of an attempt that ended right here.
    await removeLayerFiles(directory, layer, realDisk)
    // Kept by purges, as a user's; what is described and not there yet an open takes away.
    await writeLayerMeta(directory, layer, {...newHeadMeta(layer, parent, now), userCreated: true, labels: {[RESTORED_FROM]: backup}})
    await rename(join(directory, PARTIAL_FILE), join(directory, layer))
    await realDisk.syncDirectory(directory)
  })
}

async function changing(directory: string, layer: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    throw ioFailure(`making ${layer} in ${directory}`, error)
  }
}
