import {findVolume, loadVolume} from './catalog.js'
import type {BackupRecord} from './format/backup-record.js'
import {isPlausible, toMethod, type CompressionMethod} from './format/block-codec.js'
import {recordTime} from './format/json-fields.js'
import {blockKey, blocksFolder, blockSumOf, volumeKey} from './format/store-layout.js'
import {formatVolumeRecord, type VolumeRecord} from './format/volume-record.js'
import type {BackupStore} from './store/backup-store.js'

/** From this many blocks on one listing costs less than asking for each. */
const LISTING_FROM = 64

/** Tells whether a block need not be written: it is there and can be whole. */
export interface PresentBlocks {
  has(sum: string, signal?: AbortSignal): Promise<boolean>
}

/** The volume.cfg of a volume while a backup is being added to it. The caller holds a lock. */
export class VolumeWriter {
  private constructor(
    readonly store: BackupStore,
    readonly volume: VolumeRecord,
    readonly method: CompressionMethod,
  ) {}

  /**
   * Finds the volume in the store, or adds it as `fresh` describes it. The compression method is that of the volume in the store, where there is one. UNSUPPORTED
   * for a method that is not known, before anything is written: upstream writes it down and then fails for ever.
   */
  static async open(store: BackupStore, fresh: VolumeRecord, signal?: AbortSignal): Promise<VolumeWriter> {
    const key = volumeKey(fresh.name)
    const found = await findVolume(store, fresh.name, signal)
    const method = toMethod((found ?? fresh).compressionMethod, key)
    if (found !== undefined) return new VolumeWriter(store, found, method)
    const record = {...fresh, labels: null, createdTime: recordTime(new Date()), lastBackupName: '', lastBackupAt: '', blockCount: 0, compressionMethod: method, dataEngine: ''}
    await store.put(key, Buffer.from(formatVolumeRecord(record)), signal)
    return new VolumeWriter(store, record, method)
  }

  /** Which blocks the store has: one listing where many are asked for. One whose size cannot be right counts as missing, and is written again. */
  async presentBlocks(blockBytes: number, asked: number, signal?: AbortSignal): Promise<PresentBlocks> {
    const {store, method, volume} = this
    if (asked < LISTING_FROM) {
      return {
        async has(sum, signal) {
          const object = await store.head(blockKey(volume.name, sum), signal)
          return object !== undefined && isPlausible(object.sizeBytes, method, blockBytes)
        },
      }
    }
    const present = new Set<string>()
    for await (const {key, sizeBytes} of store.list(blocksFolder(volume.name), signal)) {
      const sum = blockSumOf(volume.name, key)
      if (sum !== undefined && isPlausible(sizeBytes, method, blockBytes)) present.add(sum)
    }
    return {has: async sum => present.has(sum)}
  }

  /** Records that a backup was finished. It becomes the base of the next one, unless there is a newer one already. */
  async finish(backup: BackupRecord, sizeBytes: number, newBlocks: number, signal?: AbortSignal): Promise<void> {
    const now = await loadVolume(this.store, this.volume.name, signal)
    const newer = now.lastBackupName !== '' && now.lastBackupAt > backup.snapshotCreatedAt
    const record: VolumeRecord = {
      ...now,
      blockCount: now.blockCount + newBlocks,
      compressionMethod: this.method,
      dataEngine: now.dataEngine === '' ? 'v1' : now.dataEngine,
      sizeBytes: Math.max(now.sizeBytes, sizeBytes),
      ...(newer ? {} : {labels: backup.labels, lastBackupName: backup.name, lastBackupAt: backup.snapshotCreatedAt}),
    }
    await this.store.put(volumeKey(this.volume.name), Buffer.from(formatVolumeRecord(record)), signal)
  }
}

/** Takes the record of a backup that has failed out of the store: it would keep everything from being cleaned up. What made it fail is what the caller reports. */
export async function removeUnfinished(store: BackupStore, key: string): Promise<void> {
  try {
    await store.remove(key)
  } catch {
    // A store that does not take this now is why the backup failed. The next clean-up takes the record after an hour.
  }
}
