import {setImmediate as otherWork} from 'node:timers/promises'
import type {BlockRooms} from './block-memory.js'
import {blockSealing} from './block-sealing.js'
import {maxObjectBytes} from './format/block-codec.js'
import {blockKey} from './format/store-layout.js'
import type {BackupBlock} from './format/backup-record.js'
import type {ReadableBackup} from './catalog.js'
import {retried} from './retry.js'
import type {BackupStore} from './store/backup-store.js'

const BLOCKS_AT_ONCE = 4096

/** The object of a block with its content, which has been checked. */
export interface StoredBlock {
  readonly content: Buffer
  readonly block: Buffer
}

/** Reads a block and checks its sum; with `rooms` in these, so that it is right until they are used again. NOT_FOUND when the object is not there, CORRUPT when it is damaged: neither is tried again, as that does not change. USAGE without the key of an encrypted one. */
export async function readBlock(store: BackupStore, {record, form, blockBytes}: ReadableBackup, sum: string, signal?: AbortSignal, rooms?: BlockRooms): Promise<StoredBlock> {
  const key = blockKey(record.volumeName, sum)
  const sealing = await blockSealing(store, form, record.volumeName)
  const content = await retried(() => store.get(key, maxObjectBytes(blockBytes), signal, rooms?.object), signal, {io: true})
  return {content, block: await sealing.decode(content, blockBytes, sum, key, rooms?.block)}
}

/** The offsets of each sum: several places of a volume can have the same content, which is then one object and read once. With other work in between, as there can be millions. */
export async function offsetsBySum(blocks: readonly BackupBlock[]): Promise<Map<string, number[]>> {
  const offsets = new Map<string, number[]>()
  for (const [index, {offset, sum}] of blocks.entries()) {
    if (index % BLOCKS_AT_ONCE === BLOCKS_AT_ONCE - 1) await otherWork()
    const known = offsets.get(sum)
    if (known === undefined) offsets.set(sum, [offset])
    else known.push(offset)
  }
  return offsets
}
