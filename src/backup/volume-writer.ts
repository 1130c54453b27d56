import {LonghornError} from '../lib/errors.js'
import {BlockSealing, isPlausibleObject, missingKey} from './block-sealing.js'
import {findVolume, loadVolume} from './catalog.js'
import type {BackupRecord} from './format/backup-record.js'
import {formatBlockForm, parseBlockForm, type BlockForm} from './format/block-form.js'
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
    /** Of the blocks of the backup that is being added. */
    readonly form: BlockForm,
    /** Leave what volume.cfg says of the form: it is for new backups. */
    readonly isCopy: boolean,
  ) {}

  /**
   * Finds the volume in the store, or adds it as `fresh` describes it. The compression method is that of the volume in the store, where there is one. Blocks are encrypted when the store was opened with a key.
   * UNSUPPORTED for a method that is not known, before anything is written: upstream writes it down and then fails for ever. USAGE without a key for a volume that is encrypted: its blocks never go there in clear.
   */
  static async open(store: BackupStore, fresh: VolumeRecord, signal?: AbortSignal): Promise<VolumeWriter> {
    const found = await findVolume(store, fresh.name, signal)
    const {method, keyId} = parseBlockForm((found ?? fresh).compressionMethod, volumeKey(fresh.name))
    const current = store.keys?.current
    if (current === undefined && keyId !== undefined) throw missingKey(store, keyId, fresh.name)
    const form = {method, keyId: current?.id}
    return new VolumeWriter(store, found ?? (await addVolume(store, fresh, form, signal)), form, false)
  }

  /**
   * The same for a copy of a backup, whose blocks stay encrypted as they are, or as they are not: USAGE for what is not, where the volume in the store is encrypted. Those that are not are compressed as the volume's
   * others.
   */
  static async openForCopy(store: BackupStore, fresh: VolumeRecord, source: BlockForm, signal?: AbortSignal): Promise<VolumeWriter> {
    const found = await findVolume(store, fresh.name, signal)
    const there = found === undefined ? source : parseBlockForm(found.compressionMethod, volumeKey(fresh.name))
    if (source.keyId === undefined && there.keyId !== undefined) {
      throw new LonghornError('USAGE', `volume ${fresh.name} is encrypted in ${store.url}, and this backup of it is not: copy it to another store`)
    }
    const form = source.keyId === undefined ? there : source
    return new VolumeWriter(store, found ?? (await addVolume(store, fresh, form, signal)), form, true)
  }

  /** How its blocks are written. The key is one that open() has found. */
  async sealing(): Promise<BlockSealing> {
    return new BlockSealing(this.form, this.form.keyId === undefined ? undefined : await this.store.keys?.find(this.form.keyId)?.volumeCipher(this.volume.name))
  }

  /** Which blocks the store has: one listing where many are asked for. One whose size cannot be right counts as missing, and is written again. */
  async presentBlocks(blockBytes: number, asked: number, signal?: AbortSignal): Promise<PresentBlocks> {
    const {store, form, volume} = this
    if (asked < LISTING_FROM) {
      return {
        async has(sum, signal) {
          const object = await store.head(blockKey(volume.name, sum), signal)
          return object !== undefined && isPlausibleObject(object.sizeBytes, form, blockBytes)
        },
      }
    }
    const present = new Set<string>()
    for await (const {key, sizeBytes} of store.list(blocksFolder(volume.name), signal)) {
      const sum = blockSumOf(volume.name, key)
      if (sum !== undefined && isPlausibleObject(sizeBytes, form, blockBytes)) present.add(sum)
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
      compressionMethod: this.#recordedForm(now),
      dataEngine: now.dataEngine === '' ? 'v1' : now.dataEngine,
      sizeBytes: Math.max(now.sizeBytes, sizeBytes),
      ...(newer ? {} : {labels: backup.labels, lastBackupName: backup.name, lastBackupAt: backup.snapshotCreatedAt}),
    }
    await this.store.put(volumeKey(this.volume.name), Buffer.from(formatVolumeRecord(record)), signal)
  }

  /** What is encrypted once stays so: whoever has no key is refused from then on. */
  #recordedForm(now: VolumeRecord): string {
    const form = parseBlockForm(now.compressionMethod, volumeKey(now.name))
    return formatBlockForm(form.keyId !== undefined && (this.isCopy || this.form.keyId === undefined) ? form : this.form)
  }
}

async function addVolume(store: BackupStore, fresh: VolumeRecord, form: BlockForm, signal?: AbortSignal): Promise<VolumeRecord> {
  const record = {...fresh, labels: null, createdTime: recordTime(new Date()), lastBackupName: '', lastBackupAt: '', blockCount: 0, compressionMethod: formatBlockForm(form), dataEngine: ''}
  await store.put(volumeKey(fresh.name), Buffer.from(formatVolumeRecord(record)), signal)
  return record
}

/** Takes the record of a backup that has failed out of the store: it would keep everything from being cleaned up. What made it fail is what the caller reports. */
export async function removeUnfinished(store: BackupStore, key: string): Promise<void> {
  try {
    await store.remove(key)
  } catch {
    // A store that does not take this now is why the backup failed. The next clean-up takes the record after an hour.
  }
}
