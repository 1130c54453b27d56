import {readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, isKind} from '../../lib/errors.js'
import type {DiskSteps} from '../disk-steps.js'
import {replaceFile} from '../durable-file.js'
import {checksumFile} from '../layer-names.js'
import {goJsonLine, MetaFields} from '../meta-json.js'

/** `X.img.checksum`, upstream's keys in upstream's order: what layer X should hold, valid as long as the file has not changed since. */
export interface RecordedChecksum {
  /** CRC-64 of the whole file, holes as zeros: 16 hexadecimal digits. */
  readonly checksum: string
  /** The file's ctime as text; see changeTime(). Another one: the file has changed, and the checksum says nothing. */
  readonly changeTime: string
  /** RFC 3339; empty when it came with the file from another replica. */
  readonly lastHashedAt: string
  /** The file has not changed and gives another checksum. */
  readonly silentlyCorrupted: boolean
}

const METHOD = 'crc64'

/** What is recorded; undefined when nothing is, or nothing that makes sense, which a new checksum replaces. Throws Node's errors. */
export async function readChecksum(directory: string, layer: string): Promise<RecordedChecksum | undefined> {
  const path = join(directory, checksumFile(layer))
  try {
    const fields = new MetaFields(await readFile(path, 'utf8'), path)
    const checksum = fields.text('checksum')
    if (fields.text('method') !== METHOD || !/^[0-9a-f]{16}$/.test(checksum)) return undefined
    return {
      checksum,
      changeTime: fields.text('change_time'),
      lastHashedAt: fields.text('last_hashed_at'),
      silentlyCorrupted: fields.flag('silently_corrupted'),
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || isKind(error, 'CORRUPT')) return undefined
    throw error
  }
}

export async function writeChecksum(directory: string, layer: string, record: RecordedChecksum, disk: DiskSteps): Promise<void> {
  const text = goJsonLine({
    method: METHOD,
    checksum: record.checksum,
    change_time: record.changeTime,
    last_hashed_at: record.lastHashedAt,
    silently_corrupted: record.silentlyCorrupted,
  })
  await replaceFile(join(directory, checksumFile(layer)), text, 0o644, disk)
}

/** The ctime of a layer's file as upstream writes it, and compares it as text. Throws Node's errors. */
export async function layerChangeTime(directory: string, layer: string): Promise<string> {
  return changeTime((await stat(join(directory, layer), {bigint: true})).ctimeNs)
}

/** `2026-11-20 09:39:34.651185704 +0000 UTC`: no zeros at the end of the fraction, no fraction when it is zero. */
export function changeTime(nanoseconds: bigint): string {
  const [date, time] = new Date(Number(nanoseconds / 1_000_000_000n) * 1000).toISOString().split('T') as [string, string]
  const fraction = (nanoseconds % 1_000_000_000n).toString().padStart(9, '0').replace(/0+$/, '')
  return `${date} ${time.slice(0, 8)}${fraction === '' ? '' : `.${fraction}`} +0000 UTC`
}
