import {open, readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {realDisk} from '../disk-steps.js'
import {replaceFile} from '../durable-file.js'
import {checksumFile} from '../layer-names.js'

/**
 * `X.img.checksum`: one JSON object, upstream's (reference: engine-interop 1.4). It holds as long as the data file's ctime is
 * `change_time`, which is compared as a text.
 */
export interface RecordedChecksum {
  readonly method: string
  /** In hex. */
  readonly checksum: string
}

/** A recorded checksum is some 200 bytes. */
const MAX_BYTES = 64 * 1024

/** The text of a layer's .checksum, if it is of the data as it is now. NOT_FOUND when there is none, CORRUPT when it cannot be read, CONFLICT when it is outdated. */
export async function currentChecksumText(directory: string, layer: string): Promise<string> {
  const path = join(directory, checksumFile(layer))
  const text = await read(path)
  const {change_time: recorded} = parse(text, path)
  const now = await changeTime(join(directory, layer))
  if (recorded === now) return text
  throw new LonghornError('CONFLICT', `${join(directory, layer)} has changed since its checksum was recorded: at ${now}, not at ${String(recorded)}`)
}

/** What a current .checksum records. Errors as those of currentChecksumText(). */
export async function currentChecksum(directory: string, layer: string): Promise<RecordedChecksum> {
  return toRecorded(await currentChecksumText(directory, layer), join(directory, checksumFile(layer)))
}

/** What the text of a .checksum records. CORRUPT, naming `what`, when it is none. */
export function toRecorded(text: string, what: string): RecordedChecksum {
  const {method, checksum} = parse(text, what)
  if (typeof method === 'string' && method !== '' && typeof checksum === 'string' && checksum !== '') return {method, checksum}
  throw new LonghornError('CORRUPT', `${what} records no checksum`)
}

/** Records the checksum of a layer as it is now. Node's errors. */
export async function recordChecksum(directory: string, layer: string, {method, checksum}: RecordedChecksum): Promise<void> {
  const content = {method, checksum, change_time: await changeTime(join(directory, layer)), last_hashed_at: '', silently_corrupted: false}
  await replaceFile(join(directory, checksumFile(layer)), `${JSON.stringify(content)}\n`, 0o644, realDisk)
}

/** A file's ctime as upstream writes it: `2026-11-20 09:39:34.651185704 +0000 UTC`. */
export async function changeTime(path: string): Promise<string> {
  const {ctimeNs} = await stat(path, {bigint: true})
  const seconds = new Date(Number(ctimeNs / 1_000_000_000n) * 1000).toISOString().slice(0, 19).replace('T', ' ')
  const fraction = `${ctimeNs % 1_000_000_000n}`.padStart(9, '0').replace(/0+$/, '')
  return `${seconds}${fraction === '' ? '' : `.${fraction}`} +0000 UTC`
}

async function read(path: string): Promise<string> {
  try {
    const {size} = await stat(path)
    if (size > MAX_BYTES) throw new LonghornError('CORRUPT', `${path} of ${size} bytes is no recorded checksum`)
    await using file = await open(path)
    return await readFile(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw new LonghornError('NOT_FOUND', `${path} does not exist: no checksum is recorded`, {}, {cause: error})
    throw error
  }
}

function parse(text: string, path: string): {method?: unknown; checksum?: unknown; change_time?: unknown} {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value
  } catch (error) {
    throw new LonghornError('CORRUPT', `${path} is not JSON`, {}, {cause: error})
  }
  throw new LonghornError('CORRUPT', `${path} is not a JSON object`)
}
