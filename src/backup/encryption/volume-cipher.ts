// An encrypted block, version 1:
//
//   0 "LHE1"   4 id of the key (8)   12 nonce (12)   24 ciphertext of the compressed block   last 16: tag
//
// AES-256-GCM with a random nonce. Authenticated with it: "longhorn backup 1: block", NUL, name of the volume, NUL, name of the block.
import {LonghornError} from '../../lib/errors.js'

const MAGIC = Buffer.from('LHE1')
const ID_OFFSET = 4
const NONCE_OFFSET = 12
const NONCE_BYTES = 12
const HEADER_BYTES = 24
const TAG_BYTES = 16

/** What an object has more than the compressed block in it. */
export const SEAL_BYTES = HEADER_BYTES + TAG_BYTES

type Key = Awaited<ReturnType<typeof crypto.subtle.importKey>>

/** Names, encrypts and decrypts the blocks of one volume. All of it in the thread pool. */
export class VolumeCipher {
  readonly #names: Key
  readonly #content: Key

  private constructor(
    readonly keyId: string,
    readonly volume: string,
    names: Key,
    content: Key,
  ) {
    this.#names = names
    this.#content = content
  }

  static async from(keys: {readonly names: Uint8Array; readonly content: Uint8Array}, keyId: string, volume: string): Promise<VolumeCipher> {
    const names = await crypto.subtle.importKey('raw', keys.names, {name: 'HMAC', hash: 'SHA-512'}, false, ['sign'])
    const content = await crypto.subtle.importKey('raw', keys.content, 'AES-GCM', false, ['encrypt', 'decrypt'])
    return new VolumeCipher(keyId, volume, names, content)
  }

  /** The name of a block: the first 64 hexadecimal digits of HMAC-SHA-512. Equal blocks of a volume have equal names; who has no key learns nothing else. */
  async blockSum(block: Uint8Array): Promise<string> {
    return Buffer.from(await crypto.subtle.sign('HMAC', this.#names, block), 0, 32).toString('hex')
  }

  async seal(compressed: Uint8Array, sum: string): Promise<Buffer> {
    const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES))
    const sealed = await crypto.subtle.encrypt({name: 'AES-GCM', iv: nonce, additionalData: this.#bound(sum)}, this.#content, compressed)
    return Buffer.concat([MAGIC, Buffer.from(this.keyId, 'hex'), nonce, Buffer.from(sealed)])
  }

  /** CORRUPT for what was not made with this key for this block of this volume, or was changed since; `where` is the key of the object. */
  async open(object: Buffer, sum: string, where: string): Promise<Buffer> {
    checkSealed(object, this.keyId, where)
    const iv = object.subarray(NONCE_OFFSET, HEADER_BYTES)
    try {
      return Buffer.from(await crypto.subtle.decrypt({name: 'AES-GCM', iv, additionalData: this.#bound(sum)}, this.#content, object.subarray(HEADER_BYTES)))
    } catch (error) {
      throw new LonghornError('CORRUPT', `${where} cannot be decrypted with key ${this.keyId}: it was changed, or is another block`, {key: where}, {cause: error})
    }
  }

  #bound(sum: string): Buffer {
    return Buffer.from(`longhorn backup 1: block\0${this.volume}\0${sum}`)
  }
}

/** What can be told of an encrypted block without the key. CORRUPT. */
export function checkSealed(object: Buffer, keyId: string, where: string): void {
  if (object.length <= SEAL_BYTES || !object.subarray(0, MAGIC.length).equals(MAGIC)) throw new LonghornError('CORRUPT', `${where} is no encrypted block`, {key: where})
  const found = object.subarray(ID_OFFSET, NONCE_OFFSET).toString('hex')
  if (found !== keyId) throw new LonghornError('CORRUPT', `${where} is encrypted with key ${found}, where its backup says ${keyId}`, {key: where})
}
