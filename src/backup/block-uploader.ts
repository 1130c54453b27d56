import {BlockMemory, type BlockRooms} from './block-memory.js'
import type {BlockSource} from './block-source.js'
import type {BlockSealing} from './block-sealing.js'
import {blockKey} from './format/store-layout.js'
import {retried} from './retry.js'
import type {BackupStore} from './store/backup-store.js'
import type {PresentBlocks} from './volume-writer.js'

export interface UploaderOptions {
  readonly source: BlockSource
  readonly store: BackupStore
  readonly volume: string
  readonly sealing: BlockSealing
  readonly blockBytes: number
  readonly present: PresentBlocks
  /** Store also what is there. */
  readonly full: boolean
}

/** Reads blocks of a volume and stores those that the store has not; each content once, however often it is in the volume. */
export class BlockUploader {
  newBlocks = 0
  /** Compressed bytes of blocks that were not in the store. */
  newBytes = 0
  /** Compressed bytes of blocks that were, and have been stored again. */
  reuploadedBytes = 0
  readonly #options: UploaderOptions
  readonly #memory: BlockMemory
  /** By sum: being stored, or stored. */
  readonly #stored = new Map<string, Promise<number>>()

  constructor(options: UploaderOptions) {
    this.#options = options
    this.#memory = new BlockMemory(options.blockBytes)
  }

  /** The block at `offset`: its sum, and how many bytes had to be stored for it. */
  async upload(offset: number, signal: AbortSignal): Promise<{sum: string; newBytes: number}> {
    // Not given back after a failure: a request that was broken off may still have its eyes on it.
    const rooms = this.#memory.take()
    const result = await this.#upload(offset, rooms, signal)
    this.#memory.give(rooms)
    return result
  }

  async #upload(offset: number, rooms: BlockRooms, signal: AbortSignal): Promise<{sum: string; newBytes: number}> {
    const {source, blockBytes} = this.#options
    const block = rooms.block.subarray(0, blockBytes)
    const length = Math.min(blockBytes, source.sizeBytes - offset)
    await source.read(block, length, offset)
    // Blocks are whole, also the last one of a volume that ends within it.
    if (length < blockBytes) block.fill(0, length)
    const sum = await this.#options.sealing.sum(block)
    const known = this.#stored.get(sum)
    if (known !== undefined) {
      await known
      return {sum, newBytes: 0}
    }
    const stored = this.#store(sum, block, rooms.object, signal)
    this.#stored.set(sum, stored)
    return {sum, newBytes: await stored}
  }

  async #store(sum: string, block: Buffer, room: Buffer, signal: AbortSignal): Promise<number> {
    const {store, volume, sealing, present, full} = this.#options
    const there = await retried(() => present.has(sum, signal), signal)
    if (there && !full) return 0
    const content = await sealing.encode(block, sum, room)
    await retried(() => store.put(blockKey(volume, sum), content, signal), signal)
    if (there) {
      this.reuploadedBytes += content.length
    } else {
      this.newBlocks++
      this.newBytes += content.length
    }
    return content.length
  }
}
