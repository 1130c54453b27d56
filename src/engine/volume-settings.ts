// What can be set on a volume while it is served.
import {isKind, LonghornError, messageOf} from '../lib/errors.js'
import {checkSnapshotLimits} from '../protocol/snapshot-limits.js'
import type {ReplicaControl} from './replica-control.js'
import type {ReplicaLink} from './replica-link.js'
import type {Members} from './snapshots.js'

/** Belongs to the volume: it stays when the volume is shut down and started again. */
export interface VolumeSettings {
  /** An unmap marks the snapshots under the head as removed, on every replica. */
  unmapMarkSnapChainRemoved: boolean
  /** The most snapshots that are not marked as removed; 0 for any number. */
  snapshotMaxCount: number
  /** The most that these may take on a replica's disk, in bytes; 0 for any amount. */
  snapshotMaxSizeBytes: number
  /** From how many replicas at once upstream's programs copy when they rebuild one. */
  rebuildSyncLimit: number
}

export function defaultSettings(): VolumeSettings {
  return {unmapMarkSnapChainRemoved: false, snapshotMaxCount: 0, snapshotMaxSizeBytes: 0, rebuildSyncLimit: 1}
}

/** Replicas of upstream know no "any number": this is the most that they allow. */
const UPSTREAM_MAX_COUNT = 250

/**
 * Tells a replica that is being taken into use what is set. One that does not know a setting does without: the engine
 * keeps to the limits by itself.
 */
export async function pushSettings({control, log}: Pick<Members, 'control' | 'log'>, link: ReplicaLink, settings: VolumeSettings): Promise<void> {
  try {
    await pushAll(control(link), link, settings)
  } catch (error) {
    const level = isKind(error, 'UNSUPPORTED') ? 'debug' : 'warn'
    log[level]({replica: link.address, reason: messageOf(error)}, 'this replica does not take the settings of the volume')
  }
}

async function pushAll(control: ReplicaControl, link: ReplicaLink, settings: VolumeSettings): Promise<void> {
  await Promise.all([
    control.setUnmapMark(settings.unmapMarkSnapChainRemoved),
    control.setSnapshotMaxCount(maxCountFor(link, settings.snapshotMaxCount)),
    control.setSnapshotMaxSize(settings.snapshotMaxSizeBytes),
  ])
}

/** Whether an unmap marks snapshots from now on. A replica that does not take it is dropped: it would differ from the others. */
export async function setUnmapMark(members: Members, settings: VolumeSettings, enabled: boolean): Promise<void> {
  settings.unmapMarkSnapChainRemoved = enabled
  const {volume, control} = members
  // One that refuses may be out by the time all have answered.
  const asked = volume.members.length
  const refused = await onEach(members, link => control(link).setUnmapMark(enabled))
  if (refused.length > 0 && refused.length === asked) throw refused[0]!.reason
  for (const {link, reason} of refused) {
    volume.fail(link, new LonghornError('IO', `replica ${link.address}: unmap-mark-snap-chain-removed: ${reason.message}`, {}, {cause: reason}))
  }
}

/** Sets how many snapshots there may be. CONFLICT when there are more; the error of a replica that does not take it. */
export async function setSnapshotMaxCount(members: Members, settings: VolumeSettings, count: number): Promise<void> {
  const {control} = members
  if (count > 0) {
    for (const [link, usage] of await usages(members)) {
      if (usage.count <= count) continue
      throw new LonghornError('CONFLICT', `replica ${link.address} has ${usage.count} snapshots, more than ${count}: remove some first`)
    }
  }
  settings.snapshotMaxCount = count
  const [refused] = await onEach(members, link => control(link).setSnapshotMaxCount(maxCountFor(link, count)))
  if (refused !== undefined) throw refused.reason
}

/** Sets what the snapshots may take on a disk, in bytes. Errors as those of setSnapshotMaxCount(). */
export async function setSnapshotMaxSize(members: Members, settings: VolumeSettings, sizeBytes: number): Promise<void> {
  const {control} = members
  if (sizeBytes > 0) {
    for (const [link, usage] of await usages(members)) {
      if (usage.sizeBytes <= sizeBytes) continue
      throw new LonghornError('CONFLICT', `replica ${link.address} has snapshots of ${usage.sizeBytes} bytes, more than ${sizeBytes}: remove and purge some first`)
    }
  }
  settings.snapshotMaxSizeBytes = sizeBytes
  const [refused] = await onEach(members, link => control(link).setSnapshotMaxSize(sizeBytes))
  if (refused !== undefined) throw refused.reason
}

/** Throws CONFLICT when one more snapshot would exceed a limit on any replica. Asks nobody when there is no limit. */
export async function checkRoomForSnapshot(members: Members, settings: VolumeSettings): Promise<void> {
  if (settings.snapshotMaxCount === 0 && settings.snapshotMaxSizeBytes === 0) return
  for (const [link, usage] of await usages(members)) checkSnapshotLimits(usage, settings, `replica ${link.address}`)
}

function maxCountFor(link: ReplicaLink, count: number): number {
  return count === 0 && link.features.length === 0 ? UPSTREAM_MAX_COUNT : count
}

async function usages({volume, control}: Members) {
  return Promise.all(volume.members.map(async link => [link, await control(link).snapshotUsage()] as const))
}

async function onEach({volume}: Members, call: (link: ReplicaLink) => Promise<void>): Promise<{link: ReplicaLink; reason: Error}[]> {
  const links = [...volume.members]
  const results = await Promise.allSettled(links.map(call))
  return links.flatMap((link, index) => {
    const result = results[index]!
    return result.status === 'rejected' ? [{link, reason: result.reason as Error}] : []
  })
}
