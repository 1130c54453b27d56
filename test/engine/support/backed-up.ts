// Backups of a volume that exists in memory only, in a store in a folder.
import {mkdirSync} from 'node:fs'
import {createBackup} from '../../../src/backup/create.js'
import {VfsStore} from '../../../src/backup/store/vfs.js'
import {backupUrl} from '../../../src/backup/target-url.js'
import {MemoryVolume} from '../../backup/memory-volume.js'

/** A volume whose content is known at each of its backups. */
export class BackedUp {
  readonly store: VfsStore
  readonly volume: MemoryVolume
  readonly images = new Map<string, Buffer>()

  constructor(
    readonly root: string,
    sizeBytes: number,
    readonly name = 'source',
  ) {
    mkdirSync(root, {recursive: true})
    this.store = new VfsStore(root, `vfs://${root}`)
    this.volume = new MemoryVolume(sizeBytes)
  }

  /** Backs up what is in it now. */
  async backup(backup: string, full = false): Promise<string> {
    const source = this.volume.snapshot(backup)
    await createBackup(source, this.store, {volume: this.name, snapshot: backup, backup, concurrency: 2, full, settleMs: 10})
    this.images.set(backup, Buffer.from(source.image))
    return this.url(backup)
  }

  url(backup: string): string {
    return backupUrl(this.store.url, this.name, backup)
  }

  image(backup: string): Buffer {
    return this.images.get(backup)!
  }
}
