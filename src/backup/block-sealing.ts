import {LonghornError} from '../lib/errors.js'
import {KEY_FILE_VARIABLE, KEY_VARIABLE} from './encryption/backup-keys.js'
import {SEAL_BYTES, type VolumeCipher} from './encryption/volume-cipher.js'
import {decompressBlock, encodeBlock, isPlausible} from './format/block-codec.js'
import {formatBlockForm, type BlockForm} from './format/block-form.js'
import {blockSum} from './format/store-layout.js'
import type {BackupStore} from './store/backup-store.js'

/** How blocks of a volume become objects of a store, and the other way round: named, compressed, and encrypted where they are. */
export class BlockSealing {
  constructor(
    readonly form: BlockForm,
    readonly cipher: VolumeCipher | undefined,
  ) {}

  /** What the records say of it. */
  get text(): string {
    return formatBlockForm(this.form)
  }

  sum(block: Uint8Array): Promise<string> {
    return this.cipher === undefined ? blockSum(block) : this.cipher.blockSum(block)
  }

  /** The object of a block; in `room`, where that will do, or in the block itself. */
  async encode(block: Buffer, sum: string, room?: Buffer): Promise<Buffer> {
    const content = await encodeBlock(block, this.form.method, room)
    return this.cipher === undefined ? content : this.cipher.seal(content, sum)
  }

  /** The block in an object, with its sum checked. CORRUPT for what is damaged; `where` names the object. In `room`, where that will do, or in the object itself. */
  async decode(object: Buffer, blockBytes: number, sum: string, where: string, room?: Buffer): Promise<Buffer> {
    const content = this.cipher === undefined ? object : await this.cipher.open(object, sum, where)
    const block = await decompressBlock(content, this.form.method, blockBytes, where, room)
    if ((await this.sum(block)) !== sum) throw new LonghornError('CORRUPT', `checksum verification failed for block ${where}`, {key: where})
    return block
  }
}

/** The same for a form that was found in a store, with the store's keys. USAGE when the key is not among them. */
export async function blockSealing(store: BackupStore, form: BlockForm, volume: string): Promise<BlockSealing> {
  if (form.keyId === undefined) return new BlockSealing(form, undefined)
  const key = store.keys?.find(form.keyId)
  if (key === undefined) throw missingKey(store, form.keyId, volume)
  return new BlockSealing(form, await key.volumeCipher(volume))
}

/** Whether an object of this size can be a block of this form. */
export function isPlausibleObject(sizeBytes: number, {method, keyId}: BlockForm, blockBytes: number): boolean {
  return isPlausible(keyId === undefined ? sizeBytes : sizeBytes - SEAL_BYTES, method, blockBytes)
}

/** The error for an encrypted backup without its key. */
export function missingKey(store: BackupStore, keyId: string, volume: string): LonghornError {
  const given = store.keys === undefined ? 'no key was given' : `the keys that were given are ${store.keys.ids.join(', ')}`
  return new LonghornError('USAGE', `volume ${volume} in ${store.url} is encrypted with the key ${keyId}, and ${given}: give it in ${KEY_FILE_VARIABLE} (a file or a folder) or ${KEY_VARIABLE}`, {keyId})
}
