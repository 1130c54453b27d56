import {createSecretKey, hkdfSync, type KeyObject} from 'node:crypto'
import {readdirSync, readFileSync, statSync} from 'node:fs'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {VolumeCipher} from './volume-cipher.js'

export const KEY_VARIABLE = 'LONGHORN_BACKUP_KEY'
export const KEY_FILE_VARIABLE = 'LONGHORN_BACKUP_KEY_FILE'

const KEY_BYTES = 32
const ID_BYTES = 8
const MAX_KEYS = 64
const MAX_FILE_BYTES = 64 * 1024
/** In a folder with several keys: the one to write with. */
const CURRENT = 'current'

/** A key that backups are encrypted with. What it is derived from never leaves it. */
export class BackupKey {
  readonly #key: KeyObject
  readonly #ciphers = new Map<string, Promise<VolumeCipher>>()

  private constructor(
    /** 16 hexadecimal digits that follow from the key: what records name it by. They do not tell anything of it. */
    readonly id: string,
    key: KeyObject,
  ) {
    this.#key = key
  }

  static from(bytes: Uint8Array): BackupKey {
    const key = createSecretKey(bytes)
    return new BackupKey(Buffer.from(derive(key, '', 'longhorn backup 1: key id', ID_BYTES)).toString('hex'), key)
  }

  /** What blocks of a volume are named and encrypted with. */
  volumeCipher(volume: string): Promise<VolumeCipher> {
    const known = this.#ciphers.get(volume)
    if (known !== undefined) return known
    const keys = {names: derive(this.#key, volume, 'longhorn backup 1: block names', 64), content: derive(this.#key, volume, 'longhorn backup 1: block content', KEY_BYTES)}
    const cipher = VolumeCipher.from(keys, this.id, volume)
    this.#ciphers.set(volume, cipher)
    return cipher
  }
}

/** The keys that somebody has: the first one is for writing, all of them are for reading. */
export class BackupKeys {
  readonly #keys: readonly BackupKey[]

  private constructor(keys: readonly BackupKey[]) {
    this.#keys = keys
  }

  static of(keys: readonly BackupKey[]): BackupKeys {
    return new BackupKeys(keys)
  }

  /** For writing. */
  get current(): BackupKey {
    return this.#keys[0]!
  }

  get ids(): string[] {
    return this.#keys.map(({id}) => id)
  }

  find(id: string): BackupKey | undefined {
    return this.#keys.find(key => key.id === id)
  }
}

type Env = Readonly<Record<string, string | undefined>>

/** The keys of an environment; undefined when there are none, and backups are not encrypted. Throws USAGE, which never repeats anything of a key. */
export function loadBackupKeys(env: Env): BackupKeys | undefined {
  const found = findKeyTexts(env)
  return found.length === 0 ? undefined : parseKeys(found)
}

/** The same as one text, for somebody else's LONGHORN_BACKUP_KEY; undefined when there are none. */
export function backupKeyText(env: Env): string | undefined {
  const found = findKeyTexts(env)
  if (found.length === 0) return undefined
  // Checked here, where the files are.
  parseKeys(found)
  return found.map(({text}) => text.trim()).join('\n')
}

interface KeyText {
  /** For errors. */
  readonly where: string
  readonly text: string
}

function findKeyTexts(env: Env): KeyText[] {
  const text = env[KEY_VARIABLE] ?? ''
  if (text.trim() !== '') return [{where: KEY_VARIABLE, text}]
  const path = env[KEY_FILE_VARIABLE] ?? ''
  if (path === '') return []
  try {
    return statSync(path).isDirectory() ? readFolder(path) : [readKeyFile(path)]
  } catch (error) {
    if (error instanceof LonghornError) throw error
    throw new LonghornError('USAGE', `${KEY_FILE_VARIABLE}: the key file ${path} cannot be read (${errnoOf(error) ?? 'unknown error'})`, {}, {cause: error})
  }
}

/** A file for each key, as a Kubernetes secret is mounted. */
function readFolder(path: string): KeyText[] {
  const names = readdirSync(path).filter(name => !name.startsWith('.')).sort()
  if (names.length === 0) throw new LonghornError('USAGE', `${KEY_FILE_VARIABLE}: there is no key in the folder ${path}`)
  if (names.length > 1 && !names.includes(CURRENT)) {
    throw new LonghornError('USAGE', `${KEY_FILE_VARIABLE}: ${path} has several keys (${names.join(', ')}): call the one to write with "${CURRENT}"`)
  }
  const ordered = names.includes(CURRENT) ? [CURRENT, ...names.filter(name => name !== CURRENT)] : names
  return ordered.map(name => readKeyFile(join(path, name)))
}

function readKeyFile(path: string): KeyText {
  const {size} = statSync(path)
  if (size > MAX_FILE_BYTES) throw new LonghornError('USAGE', `${KEY_FILE_VARIABLE}: ${path} has ${size} bytes: that is no file of keys`)
  return {where: path, text: readFileSync(path, 'latin1')}
}

function parseKeys(texts: readonly KeyText[]): BackupKeys {
  const keys: BackupKey[] = []
  for (const {where, text} of texts) {
    for (const [index, line] of text.split('\n').entries()) {
      const plain = line.trim()
      if (plain === '' || plain.startsWith('#')) continue
      const key = BackupKey.from(parseKey(plain, `${where}, line ${index + 1}`))
      if (!keys.some(({id}) => id === key.id)) keys.push(key)
    }
  }
  const [{where} = {where: ''}] = texts
  if (keys.length === 0) throw new LonghornError('USAGE', `${where}: there is no key in it: expected 32 random bytes as base64 or 64 hexadecimal digits`)
  if (keys.length > MAX_KEYS) throw new LonghornError('USAGE', `${where}: ${keys.length} keys are too many: at most ${MAX_KEYS}`)
  return BackupKeys.of(keys)
}

/** 64 hexadecimal digits, or base64. */
function parseKey(text: string, where: string): Buffer {
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex')
  const bytes = /^[A-Za-z0-9+/_-]+={0,2}$/.test(text) ? Buffer.from(text, 'base64') : undefined
  if (bytes?.length === KEY_BYTES) return bytes
  const what = bytes === undefined ? 'this line is something else' : `this one has ${bytes.length}`
  throw new LonghornError('USAGE', `${where}: a key has ${KEY_BYTES} bytes, written as base64 or 64 hexadecimal digits; ${what}`)
}

function derive(key: KeyObject, salt: string, purpose: string, bytes: number): Uint8Array {
  return new Uint8Array(hkdfSync('sha512', key, salt, purpose, bytes))
}
