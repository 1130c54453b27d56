import {setTimeout as delay} from 'node:timers/promises'
import {LonghornError} from '../lib/errors.js'
import {blockSealing} from './block-sealing.js'
import {maxObjectBytes} from './format/block-codec.js'
import {blockKey} from './format/store-layout.js'
import type {BackupBlock} from './format/backup-record.js'
import type {ReadableBackup} from './catalog.js'
import type {BackupStore} from './store/backup-store.js'

/** Waits before a read is tried again. What is missing or damaged is not read again: that does not change. */
const RETRY_MS = [1000, 5000]

/** The object of a block with its content, which has been checked. */
export interface StoredBlock {
  readonly content: Buffer
  readonly block: Buffer
}

/** Reads a block and checks its sum. NOT_FOUND when the object is not there, CORRUPT when it is damaged, USAGE without the key of an encrypted one. */
export async function readBlock(store: BackupStore, {record, form, blockBytes}: ReadableBackup, sum: string, signal?: AbortSignal): Promise<StoredBlock> {
  const key = blockKey(record.volumeName, sum)
  const sealing = await blockSealing(store, form, record.volumeName)
  const content = await retried(() => store.get(key, maxObjectBytes(blockBytes), signal), signal)
  return {content, block: await sealing.decode(content, blockBytes, sum, key)}
}

/** The offsets of each sum: several places of a volume can have the same content, which is then one object and read once. */
export function offsetsBySum(blocks: readonly BackupBlock[]): Map<string, number[]> {
  const offsets = new Map<string, number[]>()
  for (const {offset, sum} of blocks) {
    const known = offsets.get(sum)
    if (known === undefined) offsets.set(sum, [offset])
    else known.push(offset)
  }
  return offsets
}

/** Tries a few times what may go away by itself. */
export async function retried<T>(read: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await read()
    } catch (error) {
      const wait = RETRY_MS[attempt]
      const final = !(error instanceof LonghornError) || !(error.retryable || error.code === 'LH_IO')
      if (final || wait === undefined || signal?.aborted) throw error
      await delay(wait, undefined, {signal})
    }
  }
}
