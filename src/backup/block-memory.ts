import {alignedBuffer} from '../lib/sys/aligned-buffer.js'
import {maxObjectBytes} from './format/block-codec.js'

/** What liblz4 decompresses into without a copy: one block of a frame. */
const LZ4_BLOCK_BYTES = 4 * 1024 ** 2

/** Where a block is while it is worked on. */
export interface BlockRooms {
  /** At least a block, at a multiple of the page size, so that it can be written past the page cache. */
  readonly block: Buffer
  /** Its object. */
  readonly object: Buffer
}

/**
 * Memory for blocks that is used again. New memory for each is returned by garbage collections only, and asks for them: they took a fifth of
 * the time of a restore.
 */
export class BlockMemory {
  readonly #free: BlockRooms[] = []

  constructor(readonly blockBytes: number) {}

  take(): BlockRooms {
    // Pages that are never touched are no memory.
    return this.#free.pop() ?? {block: alignedBuffer(Math.max(this.blockBytes, LZ4_BLOCK_BYTES)), object: Buffer.allocUnsafeSlow(maxObjectBytes(this.blockBytes))}
  }

  /** Gives back what take() gave, when nobody looks at it any more. */
  give(rooms: BlockRooms): void {
    this.#free.push(rooms)
  }
}
