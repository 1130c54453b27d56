import {checkSnapshotLimits, type SnapshotUsage} from '../protocol/snapshot-limits.js'
import type {Layer, ReplicaDirectory} from './layer-chain.js'
import type {ReplicaVolume} from './replica-volume.js'

/**
 * What an engine sets on a replica while it runs, or the command line at its start. Nothing of it is kept on the disk: an
 * engine says it anew when it starts.
 */
export class ReplicaSettings {
  /** The most snapshots that are not marked as removed; 0 for any number. */
  snapshotMaxCount = 0
  /** The most that these may take on the disk, in bytes; 0 for any amount. */
  snapshotMaxSizeBytes = 0
  /** An unmap marks the snapshots under the head as removed; see layersToMark(). */
  markOnUnmap = false

  /** Throws CONFLICT when a user's snapshot of `volume` would exceed a limit. What the system takes for itself is never refused. */
  checkSnapshot(volume: ReplicaVolume): void {
    if (this.snapshotMaxCount === 0 && this.snapshotMaxSizeBytes === 0) return
    checkSnapshotLimits(snapshotUsage(volume), this, `the replica in ${volume.directory.path}`)
  }
}

export function snapshotUsage(volume: ReplicaVolume): SnapshotUsage {
  const {chain, others} = volume.directory
  const head = chain.at(-1)!
  const allocated = new Map(volume.usage().map(({file, allocatedBytes}) => [file, allocatedBytes]))
  const kept = (layer: Layer): boolean => layer !== head && !layer.meta.removed
  const sizeBytes = chain.filter(kept).reduce((sum, {file}) => sum + (allocated.get(file) ?? 0), 0)
  return {count: [...chain, ...others].filter(kept).length, sizeBytes, headBytes: allocated.get(head.file) ?? 0}
}

/**
 * The layers that an unmap marks as removed where that is wanted: from the one under the head downwards, until one that
 * another branch stands on as well. A purge then gives back what the head hides of them.
 */
export function layersToMark({chain, others}: ReplicaDirectory): string[] {
  const below = chain.slice(0, -1).reverse()
  if (below.every(({meta}) => meta.removed)) return []
  const shared = new Set(others.map(({meta}) => meta.parent))
  const end = below.findIndex(({file}) => shared.has(file))
  const alone = end === -1 ? below : below.slice(0, end)
  return alone.filter(({meta}) => !meta.removed).map(({file}) => file)
}
