// Changes of the layers that somebody else plans: an engine that prepares a rebuild, or upstream's sync agent. What a
// replica of ours does by itself about removed snapshots is purge/.
import {PARTIAL_FILE, RESTORE_FILE} from './backup/restore-record.js'
import {join} from 'node:path'
import {LonghornError} from '../lib/errors.js'
import {ATOMIC_JOURNAL} from './atomic-journal.js'
import {realDisk, type DiskSteps} from './disk-steps.js'
import {ioFailure} from './io-failure.js'
import {listDirectory, type Layer} from './layer-chain.js'
import {isHeadName, isLayerName, isTemporaryName, REVISION_COUNTER, VOLUME_META} from './layer-names.js'
import {Pace} from './purge/copy-data.js'
import {LayerMerge} from './purge/merge-layers.js'
import {nextPurgeStep} from './purge/purge-plan.js'
import {MEMBERSHIP_FILE} from './membership.js'
import type {Replica} from './replica.js'
import type {ReplicaVolume} from './replica-volume.js'

/** A step of upstream's way to remove a layer; the names are upstream's. */
export interface RemoveAction {
  readonly action: 'remove' | 'coalesce' | 'replace' | 'prune'
  readonly source: string
  readonly target: string
}

/**
 * What can be done now about a layer that is marked as removed; nothing for one that is not there, or that several stand on.
 * USAGE for the head, CONFLICT for a layer that is not marked.
 */
export function removeActions(volume: ReplicaVolume, layer: string): RemoveAction[] {
  checkNoHead(layer)
  const layers = allLayers(volume)
  const found = layers.find(({file}) => file === layer)
  if (found === undefined) return []
  if (!found.meta.removed) throw new LonghornError('CONFLICT', `${layer} is not marked as removed`)
  const plan = layers.map(({file, meta}) => ({file, parent: meta.parent, removed: file === layer}))
  const step = nextPurgeStep(plan, volume.directory.volume.head, new Set())
  switch (step?.kind) {
    case undefined:
      return []
    case 'remove':
      return [{action: 'remove', source: layer, target: ''}]
    case 'merge':
      return [
        {action: 'coalesce', source: layer, target: step.upper},
        {action: 'replace', source: layer, target: step.upper},
      ]
    case 'prune':
      return [{action: 'prune', source: layer, target: volume.directory.volume.head}]
  }
}

/**
 * Makes two frozen layers one: `target`, which stands on `source` alone, then holds what both did, and `source` is gone. It
 * does not matter whether the data was brought together before. CONFLICT unless `source` is marked as removed and nothing
 * else stands on it; NOT_FOUND when there is no such layer; BUSY during a purge.
 */
export async function replaceDisk(replica: Replica, target: string, source: string): Promise<void> {
  checkNoHead(target)
  checkNoHead(source)
  await replica.changeLayers(async volume => {
    const {path} = volume.directory
    const [lower, upper] = [source, target].map(file => {
      const layer = allLayers(volume).find(one => one.file === file)
      if (layer === undefined) throw new LonghornError('NOT_FOUND', `${path} has no layer ${file}`)
      return layer
    }) as [Layer, Layer]
    if (!lower.meta.removed) throw new LonghornError('CONFLICT', `${source} is not marked as removed`)
    const above = allLayers(volume).filter(({meta}) => meta.parent === source)
    if (above.length !== 1 || above[0] !== upper) throw new LonghornError('CONFLICT', `${target} is not all that stands on ${source}`)
    try {
      const merge = await LayerMerge.plan(path, lower, upper, volume.scanner, volume.disk)
      await merge.copy(new Pace(1, new AbortController().signal), () => undefined)
      const meta = await merge.commit()
      volume.mergeLayers(source, target, meta, await merge.sizeBytes())
      await merge.removeLower()
      volume.forgetLayer(source)
    } catch (error) {
      throw ioFailure(`replacing ${target} by ${source} in ${path}`, error)
    }
  })
}

/**
 * Removes the files of a replica. volume.meta goes first, so that what a crash leaves is not taken for a replica; deleting
 * again removes the rest. Files of others stay.
 */
export async function deleteReplicaFiles(path: string, disk: DiskSteps = realDisk): Promise<void> {
  try {
    await disk.remove(join(path, VOLUME_META))
    await disk.syncDirectory(path)
    for (const file of await listDirectory(path)) if (isOurs(file)) await disk.remove(join(path, file))
    await disk.syncDirectory(path)
  } catch (error) {
    throw ioFailure(`deleting the replica in ${path}`, error)
  }
}

function isOurs(file: string): boolean {
  const layer = file.replace(/\.(meta|checksum)$/, '')
  return isLayerName(layer) || isTemporaryName(file) || [VOLUME_META, REVISION_COUNTER, ATOMIC_JOURNAL, MEMBERSHIP_FILE, RESTORE_FILE, PARTIAL_FILE].includes(file)
}

function allLayers({directory: {chain, others}}: ReplicaVolume): Layer[] {
  return [...chain, ...others]
}

function checkNoHead(layer: string): void {
  if (isHeadName(layer)) throw new LonghornError('USAGE', `${layer} is the head of the volume and no snapshot`)
}
