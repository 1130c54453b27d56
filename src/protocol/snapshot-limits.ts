// How many snapshots a volume may have, as engine and replica both see it.
import {LonghornError} from '../lib/errors.js'

/** Zero means that there is no limit. */
export interface SnapshotLimits {
  /** The most snapshots that are not marked as removed. */
  readonly snapshotMaxCount: number
  /** The most that these may take on the disk of a replica, in bytes. */
  readonly snapshotMaxSizeBytes: number
}

export interface SnapshotUsage {
  /** Snapshots that are not marked as removed, in all branches. */
  readonly count: number
  /** What those of the live chain take on the disk, in bytes. */
  readonly sizeBytes: number
  /** What the head takes, in bytes: that is the size of a snapshot taken now. */
  readonly headBytes: number
}

/** Throws CONFLICT when one more snapshot would exceed a limit. `who` has the snapshots. */
export function checkSnapshotLimits(usage: SnapshotUsage, {snapshotMaxCount, snapshotMaxSizeBytes}: SnapshotLimits, who: string): void {
  if (snapshotMaxCount > 0 && usage.count >= snapshotMaxCount) {
    throw new LonghornError('CONFLICT', `${who} has ${usage.count} snapshots and may have ${snapshotMaxCount}: remove some, or raise the limit`)
  }
  const bytes = usage.sizeBytes + usage.headBytes
  if (snapshotMaxSizeBytes > 0 && bytes > snapshotMaxSizeBytes) {
    const message = `${who} would have snapshots of ${bytes} bytes and may have ${snapshotMaxSizeBytes}: remove and purge some, or raise the limit`
    throw new LonghornError('CONFLICT', message)
  }
}
