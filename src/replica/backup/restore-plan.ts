import {createHash} from 'node:crypto'
import {join} from 'node:path'
import type {BackupBlock} from '../../backup/format/backup-record.js'
import {openBackup} from '../../backup/catalog.js'
import {findBaseBlocks, restoreBlocks} from '../../backup/restore-blocks.js'
import {LOCK, StoreLock} from '../../backup/store-lock.js'
import type {OnProgress} from '../../backup/transfer-progress.js'
import type {Cleanup} from '../../lib/cleanup.js'
import {LonghornError} from '../../lib/errors.js'
import {snapshotFile} from '../layer-names.js'
import type {Replica} from '../replica.js'
import type {ReplicaVolume} from '../replica-volume.js'
import {DeltaImage, FullImage, type RestoreImage} from './restore-image.js'
import {PARTIAL_FILE, unwrittenLayers} from './restore-record.js'
import type {RestoreWish} from './restore-wish.js'

/** How a restore is to be done. */
export interface RestorePlan {
  /** The open replica that it is for. */
  readonly volume: ReplicaVolume
  readonly backup: string
  /** File names: what it becomes, and what that stands on, '' for a whole image. */
  readonly layer: string
  readonly parent: string
  /** Brings everything here, durably. */
  fetch(signal: AbortSignal, onProgress: OnProgress): Promise<void>
}

interface Base {
  /** The layer on top, below the head. */
  readonly parent: string
  readonly blocks: readonly BackupBlock[]
}

/** Looks what there is here and in the store. What has to be given back afterwards goes into `owned`. See RestoreJobs.start() for the errors. */
export async function planRestore(replica: Replica, wish: RestoreWish, owned: Cleanup, signal: AbortSignal): Promise<RestorePlan> {
  const volume = replica.openVolume
  if (volume.joining || volume.meta.rebuilding || replica.rebuildStatus.state === 'in_progress') {
    throw new LonghornError('CONFLICT', `the replica in ${replica.directory} is being rebuilt: restore when that is done`)
  }
  const store = owned.add(await wish.openStore())
  const lock = owned.add(await StoreLock.take(store, wish.volume, LOCK.CREATE_OR_RESTORE, {signal}))
  const backup = await openBackup(store, wish.volume, wish.backup, signal)
  if (backup.volume.backingImageName !== '') throw new LonghornError('UNSUPPORTED', `backup ${wish.backup} is of a volume with a backing image, which cannot be restored yet`)
  const needed = backup.volume.sizeBytes
  if (needed > volume.sizeBytes) {
    throw new LonghornError('CONFLICT', `backup ${wish.backup} is of a volume of ${needed} bytes, and this one has ${volume.sizeBytes}: need to expand the volume to size ${needed} before the restore`)
  }
  const known = baseLayer(replica, volume, wish)
  const blocks = known && (await findBaseBlocks(store, backup, known.backup, signal))
  const base: Base | undefined = blocks && {parent: known.parent, blocks}
  const path = join(replica.directory, PARTIAL_FILE)
  const {sizeBytes} = volume
  return {
    volume,
    backup: wish.backup,
    layer: layerFor(volume, wish),
    parent: base?.parent ?? '',
    fetch: async (signal, onProgress) => {
      const image: RestoreImage = base === undefined ? await FullImage.open(path, sizeBytes) : await DeltaImage.open(path, sizeBytes, replica.directory, base.parent)
      try {
        await restoreBlocks(store, backup, image, lock, {concurrency: wish.concurrency, base: base?.blocks, onProgress, signal})
        await image.sync()
        lock.checkHeld()
      } finally {
        await image.close()
      }
      // Nothing of the store is needed any more, however long it takes until this is put in its place.
      // A lock that stays expires, and whoever owns it tells why.
      await lock.close().catch(() => undefined)
    },
  }
}

/** What the volume holds, if nothing was written since, and the layer that what comes can stand on. */
function baseLayer(replica: Replica, volume: ReplicaVolume, wish: RestoreWish): {backup: string; parent: string} | undefined {
  const unwritten = unwrittenLayers(volume)
  const [parent = ''] = unwritten
  if (wish.hold) {
    if (wish.base === undefined) return undefined
    if (unwritten.includes(wish.base.layer)) return {backup: wish.base.backup, parent}
    throw new LonghornError('CONFLICT', `the replica in ${replica.directory} does not hold backup ${wish.base.backup} as it was restored`)
  }
  const restored = replica.restores.restored(volume.directory)
  if (restored === undefined || !unwritten.includes(restored.layer)) return undefined
  const query = new URL(restored.backup).searchParams
  return query.get('volume') === wish.volume ? {backup: query.get('backup') ?? '', parent} : undefined
}

/**
 * Upstream's clients name the layer that there is when another backup is to come into it. Here that comes into one of its own first, whose
 * name is the same on all replicas.
 */
function layerFor({directory}: ReplicaVolume, wish: RestoreWish): string {
  const taken = (layer: string): boolean => directory.chain.some(({file}) => file === layer)
  if (!taken(wish.layer)) return wish.layer
  if (wish.hold) throw new LonghornError('CONFLICT', `${directory.path} has a layer ${wish.layer} already`)
  const name = createHash('sha256').update(`${wish.layer} ${wish.recorded}`).digest('hex').slice(0, 32)
  return snapshotFile(`restore-${name}`)
}
