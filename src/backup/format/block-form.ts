// What a record says of its blocks, in CompressionMethod: `lz4`, or `lz4+aes-256-gcm+0123456789abcdef` with the id of a key. Upstream does not know the latter and reads nothing of it.
import {LonghornError} from '../../lib/errors.js'
import {toMethod, type CompressionMethod} from './block-codec.js'

const CIPHER = 'aes-256-gcm'

export interface BlockForm {
  readonly method: CompressionMethod
  /** Of the key that the blocks are encrypted with; undefined when they are not. */
  readonly keyId: string | undefined
}

/** Reads it. UNSUPPORTED for what nobody can read. */
export function parseBlockForm(text: string, where: string): BlockForm {
  const [method = '', cipher, keyId = '', ...more] = text.split('+')
  if (cipher === undefined) return {method: toMethod(method, where), keyId: undefined}
  if (cipher !== CIPHER || !/^[0-9a-f]{16}$/.test(keyId) || more.length > 0 || method === '') {
    throw new LonghornError('UNSUPPORTED', `${where}: "${text}" is no way to store blocks that is known here: a newer version may have made it`)
  }
  return {method: toMethod(method, where), keyId}
}

export function formatBlockForm({method, keyId}: BlockForm): string {
  return keyId === undefined ? method : [method, CIPHER, keyId].join('+')
}

/** The id of the key in a record's text; undefined for none, and for what cannot be read. */
export function keyIdOf(text: string): string | undefined {
  return new RegExp(`^[a-z0-9]+\\+${CIPHER}\\+([0-9a-f]{16})$`).exec(text)?.[1]
}
