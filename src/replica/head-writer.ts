import {LonghornError} from '../lib/errors.js'
import {writeAt} from '../lib/sys/positioned-io.js'
import {checkRange, endBlock, firstBlock, type HeadContext} from './head-context.js'
import {ioFailure} from './io-failure.js'
import {BLOCK_BYTES, NO_LAYER} from './sector-map.js'
import {takeBack} from './take-back.js'

const NO_BLOCKS: readonly number[] = []

/**
 * Writes to the head. A block enters the head whole, because a hole of 4096 bytes is what lets the layers below shine
 * through; a write of a part of a block that the head does not hold yet is merged with what is read there.
 *
 * A write is done in the event loop, whatever its length: filling the page cache costs less than waking a thread and being
 * woken by it. With O_DIRECT, in the thread pool, large writes were half as fast in bench data-path.
 *
 * After a failed write every block that the head did not hold before reads as before, now and after a reopen; blocks
 * that it held may have their old or new content, sector by sector. Overlapping writes take effect in the order of the calls.
 */
export class HeadWriter {
  readonly #scratch = Buffer.alloc(BLOCK_BYTES)

  constructor(readonly context: HeadContext) {}

  /**
   * Writes `length` bytes of `source` from `start` at `offset`: done when this returns undefined, else when the promise
   * resolves; until then `source` belongs to the write. `durable`: resolves when it would survive a power cut.
   * RangeError outside the volume or buffer; NO_SPACE and IO when the disk refuses, thrown or rejected.
   */
  write(source: Buffer, start: number, length: number, offset: number, durable = false, continued = false): Promise<void> | undefined {
    const {stack, gate, counter, locks, flusher} = this.context
    if (gate.reason !== undefined) throw gate.reason
    if (!(start >= 0 && start + length <= source.length)) throw new RangeError(`${length} bytes from ${start} are not inside the buffer`)
    checkRange(stack, offset, length)
    if (length === 0) return durable ? flusher.flush() : undefined
    // How a request is cut depends on how its bytes arrived: replicas that count the pieces come to different numbers.
    if (!continued) counter?.add()
    if (locks.overlaps(firstBlock(offset), endBlock(offset, length)) || this.#partsElsewhere(offset, length).length > 0) return this.#writeLater(source, start, length, offset, durable)
    this.writeNow(source, start, length, offset)
    return durable ? flusher.flush() : undefined
  }

  /** Writes in the event loop, without asking whether something else is changing the range: the caller has. */
  writeNow(source: Buffer, start: number, length: number, offset: number): void {
    const first = firstBlock(offset)
    const end = endBlock(offset, length)
    if (first * BLOCK_BYTES === offset && (end * BLOCK_BYTES === offset + length || offset + length === this.context.stack.sizeBytes)) {
      this.#writeBlocks(source, start, length, offset, first, end - first)
    } else {
      this.#writeParts(source, start, length, offset)
    }
  }

  #writeBlocks(source: Buffer, start: number, length: number, offset: number, first: number, count: number): void {
    const {stack, flusher} = this.context
    flusher.touch()
    this.#writeBytes(source, start, length, offset, first, count)
    stack.map.set(first, count, stack.headNumber)
  }

  /** A write whose beginning or end lies inside a block: the partial blocks one by one, the rest in one go. */
  #writeParts(source: Buffer, start: number, length: number, offset: number): void {
    let done = 0
    while (done < length) {
      const at = offset + done
      const block = firstBlock(at)
      const inBlock = at - block * BLOCK_BYTES
      const whole = inBlock === 0 ? Math.floor((length - done) / BLOCK_BYTES) : 0
      const bytes = whole > 0 ? whole * BLOCK_BYTES : Math.min(BLOCK_BYTES - inBlock, length - done)
      if (whole > 0) this.#writeBlocks(source, start + done, bytes, at, block, whole)
      else this.#writePart(source, start + done, bytes, block, inBlock)
      done += bytes
    }
  }

  /**
   * While layers below are missing, of a rebuild: gets the rest of the blocks that a change of this range covers in part from where
   * it is, and writes it to the head. The caller holds the range.
   */
  async copyUp(offset: number, length: number): Promise<void> {
    for (const block of this.#partsElsewhere(offset, length)) {
      const {stack} = this.context
      const from = block * BLOCK_BYTES
      const bytes = Math.min(BLOCK_BYTES, stack.sizeBytes - from)
      const old = await stack.fetchBelow!(from, bytes)
      this.context.gate.checkFailure()
      this.#writeBlocks(old, 0, bytes, from, block, 1)
    }
  }

  /** The blocks covered in part that none of the layers that are here holds, while some are not here. */
  #partsElsewhere(offset: number, length: number): readonly number[] {
    const {stack} = this.context
    if (stack.fetchBelow === undefined || length === 0) return NO_BLOCKS
    const first = firstBlock(offset)
    const last = endBlock(offset, length) - 1
    const end = offset + length
    const partial: number[] = []
    if (offset % BLOCK_BYTES !== 0 || (first === last && end % BLOCK_BYTES !== 0 && end !== stack.sizeBytes)) partial.push(first)
    if (last !== first && end % BLOCK_BYTES !== 0 && end !== stack.sizeBytes) partial.push(last)
    return partial.filter(block => stack.map.lookup(block) === NO_LAYER)
  }

  #writePart(source: Buffer, start: number, length: number, block: number, inBlock: number): void {
    const {stack, reader, flusher} = this.context
    const from = block * BLOCK_BYTES
    if (stack.map.lookup(block) === stack.headNumber) {
      flusher.touch()
      this.#writeBytes(source, start, length, from + inBlock, block, 1)
      return
    }
    if (stack.below.incomplete && stack.map.lookup(block) === NO_LAYER) {
      const message = `cannot write ${length} bytes at ${from + inBlock}: the rest of the block is not here yet, the replica is being rebuilt`
      throw new LonghornError('UNSUPPORTED', message)
    }
    const blockBytes = Math.min(BLOCK_BYTES, stack.sizeBytes - from)
    reader.readSync(this.#scratch, 0, blockBytes, from)
    source.copy(this.#scratch, inBlock, start, start + length)
    this.#writeBlocks(this.#scratch, 0, blockBytes, from, block, 1)
  }

  #writeBytes(source: Buffer, start: number, length: number, offset: number, first: number, count: number): void {
    const {head} = this.context.stack
    try {
      let done = writeAt(head.fd, source, start, length, offset)
      while (done < length) done += writeAt(head.fd, source, start + done, length - done, offset + done)
    } catch (error) {
      takeBack(this.context, first, count)
      throw ioFailure(`writing ${length} bytes at ${offset} to ${head.path}`, error)
    }
  }

  async #writeLater(source: Buffer, start: number, length: number, offset: number, durable: boolean): Promise<void> {
    const {locks, gate, flusher} = this.context
    const ticket = locks.acquire(firstBlock(offset), endBlock(offset, length))
    try {
      await ticket.ready
      gate.checkFailure()
      await this.copyUp(offset, length)
      this.writeNow(source, start, length, offset)
    } finally {
      locks.release(ticket)
    }
    if (durable) await flusher.sync()
  }
}
