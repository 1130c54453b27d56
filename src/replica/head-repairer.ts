import {LonghornError} from '../lib/errors.js'
import {checkRange, endBlock, firstBlock, type HeadContext} from './head-context.js'
import type {HeadWriter} from './head-writer.js'
import {ioFailure} from './io-failure.js'
import {readFromDisk} from './read-back.js'
import {BLOCK_BYTES, NO_LAYER} from './sector-map.js'

interface Run {
  readonly offset: number
  readonly length: number
}

/**
 * Rewrites what could not be read, with data from another replica. Only blocks that the head holds: writing those of a snapshot to the head
 * would leave the snapshot as damaged as it is. A disk replaces a bad sector when it is written; what was written is read back from the disk.
 */
export class HeadRepairer {
  constructor(
    readonly context: HeadContext,
    readonly writer: HeadWriter,
  ) {}

  /**
   * `data` is for whole blocks from `offset` on, and belongs to the repair until it is done. Resolves to the bytes that are in a frozen
   * layer and stay as they are. Throws USAGE for anything but whole blocks, RangeError outside the volume, IO and NO_SPACE
   * when the disk refuses or gives back something else.
   */
  async repair(data: Buffer, offset: number): Promise<number> {
    const {stack, gate, locks, flusher} = this.context
    if (gate.reason !== undefined) throw gate.reason
    checkRange(stack, offset, data.length)
    const end = offset + data.length
    if (offset % BLOCK_BYTES !== 0 || (end % BLOCK_BYTES !== 0 && end !== stack.sizeBytes)) {
      throw new LonghornError('USAGE', `a repair of ${data.length} bytes at ${offset} is not one of whole blocks of ${BLOCK_BYTES}`)
    }
    const ticket = locks.acquire(firstBlock(offset), endBlock(offset, data.length))
    try {
      if (ticket.ready !== undefined) await ticket.ready
      gate.checkFailure()
      const {inHead, frozenBytes} = this.#runs(offset, data.length)
      for (const run of inHead) this.writer.writeNow(data, run.offset - offset, run.length, run.offset)
      if (inHead.length > 0) await flusher.sync()
      for (const run of inHead) await this.#readBack(data, offset, run)
      return frozenBytes
    } finally {
      locks.release(ticket)
    }
  }

  #runs(offset: number, length: number): {inHead: Run[]; frozenBytes: number} {
    const {map, headNumber} = this.context.stack
    const inHead: Run[] = []
    let frozenBytes = 0
    const end = endBlock(offset, length)
    for (let block = firstBlock(offset); block < end; ) {
      const blocks = map.runLength(block, end - block)
      const from = block * BLOCK_BYTES
      const bytes = Math.min(blocks * BLOCK_BYTES, offset + length - from)
      const holder = map.lookup(block)
      if (holder === headNumber) inHead.push({offset: from, length: bytes})
      else if (holder !== NO_LAYER) frozenBytes += bytes
      block += blocks
    }
    return {inHead, frozenBytes}
  }

  async #readBack(data: Buffer, start: number, {offset, length}: Run): Promise<void> {
    const {head} = this.context.stack
    let back: Buffer
    try {
      // The same file, whatever it is called by now.
      back = await readFromDisk(`/proc/self/fd/${head.fd}`, length, offset)
    } catch (error) {
      throw ioFailure(`reading back ${length} bytes at ${offset} of ${head.path}`, error)
    }
    if (back.compare(data, offset - start, offset - start + length) === 0) return
    throw new LonghornError('IO', `${head.path} gives back something else than what was written to it, in ${length} bytes at ${offset}: its disk is failing`)
  }
}
