import {errnoOf} from '../lib/errors.js'
import {punchHole, zeroRange} from '../lib/sys/fallocate.js'
import {SURVEY_BLOCKS} from './below-head.js'
import {checkRange, endBlock, firstBlock, type HeadContext} from './head-context.js'
import type {HeadWriter} from './head-writer.js'
import {ioFailure} from './io-failure.js'
import {BLOCK_BYTES, NO_LAYER} from './sector-map.js'
import {takeBack} from './take-back.js'

/** Up to here zeros are written as data: zeroing a range in the file system costs a journal transaction. */
const PLAIN_ZERO_BLOCKS = 16

/** The most that is treated in one go: 1 GiB. */
const STRETCH_BLOCKS = 256 * 1024

/** Zeros for where they have to be written out. 64 KiB, the length of a write in the event loop. */
const ZEROS = Buffer.alloc(PLAIN_ZERO_BLOCKS * BLOCK_BYTES)

/** What becomes of blocks: all of them zero and allocated, zero, or zero only where the head holds them. */
type Mode = 'allocate' | 'zero' | 'discard'

/**
 * Write-zeroes and discard. What they do depends on who holds a block:
 *
 *                               head, over nothing   head, over a layer   a layer below   nobody
 *     discard                   hole                 zeros                as it is        as it is
 *     write-zeroes, may unmap   hole                 zeros                zeros           as it is
 *     write-zeroes, must not    zeros                zeros                zeros           zeros
 *
 * A hole is only punched where nothing lies below, so that reads are the same before and after a reopen and a discard
 * cannot reach a snapshot. A discarded block of the head always reads zeros and never "sometimes the old data": replicas
 * of a volume purge their snapshots at different times, and what lies below must not make their contents differ.
 * Zeros are unwritten extents, which count as data, or real zeros where the file system or the scanner knows no such thing.
 */
export class HeadZeroer {
  #zeroRangeWorks: boolean

  constructor(
    readonly context: HeadContext,
    readonly writer: HeadWriter,
  ) {
    this.#zeroRangeWorks = context.stack.scanner.unwrittenIsData
  }

  /**
   * Makes [offset, offset+length) read as zeros. `mayUnmap`: space may be given back where that is possible.
   * Bytes, any alignment. Errors as those of a write.
   */
  async writeZeroes(offset: number, length: number, mayUnmap: boolean, durable = false): Promise<void> {
    const {stack, gate, counter, flusher} = this.context
    if (gate.reason !== undefined) throw gate.reason
    checkRange(stack, offset, length)
    counter?.add()
    const end = offset + length
    const from = Math.min(end, Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES)
    const to = end === stack.sizeBytes ? end : Math.max(from, Math.floor(end / BLOCK_BYTES) * BLOCK_BYTES)
    await this.#locked(offset, length, async () => {
      await this.writer.copyUp(offset, length)
      if (from > offset) this.writer.writeNow(ZEROS, 0, from - offset, offset)
      if (to > from) await this.#zeroBlocks(firstBlock(from), endBlock(from, to - from), mayUnmap ? 'zero' : 'allocate')
      if (end > to) this.writer.writeNow(ZEROS, 0, end - to, to)
    })
    if (durable) await flusher.sync()
  }

  /**
   * Says that the content of [offset, offset+length) is not needed. Blocks only partly inside are left alone.
   * Resolves to the bytes given back to the file system.
   */
  async discard(offset: number, length: number, durable = false): Promise<number> {
    const {stack, gate, counter, flusher} = this.context
    if (gate.reason !== undefined) throw gate.reason
    checkRange(stack, offset, length)
    counter?.add()
    const first = endBlock(offset, 0)
    const end = offset + length === stack.sizeBytes ? endBlock(offset, length) : firstBlock(offset + length)
    if (first >= end) return 0
    let freed = 0
    await this.#locked(first * BLOCK_BYTES, (end - first) * BLOCK_BYTES, async () => {
      freed = await this.#zeroBlocks(first, end, 'discard')
    })
    if (durable) await flusher.sync()
    return freed
  }

  async #locked(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    const {locks, gate} = this.context
    const ticket = locks.acquire(firstBlock(offset), endBlock(offset, length))
    try {
      if (ticket.ready !== undefined) await ticket.ready
      gate.checkFailure()
      await work()
    } finally {
      locks.release(ticket)
    }
  }

  /** Treats blocks [first, end), a stretch at a time. The bytes given back. */
  async #zeroBlocks(first: number, end: number, mode: Mode): Promise<number> {
    const {below} = this.context.stack
    let freed = 0
    for (let block = first; block < end; ) {
      const nothingBelow = below.isEmpty(block, Math.min(end - block, STRETCH_BLOCKS))
      const stretchEnd = Math.min(end, block + (nothingBelow ? STRETCH_BLOCKS : SURVEY_BLOCKS))
      freed += await this.#zeroStretch(block, stretchEnd, mode)
      block = stretchEnd
    }
    return freed
  }

  async #zeroStretch(first: number, end: number, mode: Mode): Promise<number> {
    const {map, below, headNumber} = this.context.stack
    const held = mode === 'allocate' ? undefined : below.survey(first, end - first)
    let freed = 0
    for (let from = first; from < end; ) {
      const fate = this.#fate(from, held?.[from - first] === 1, mode)
      let to = from
      let owned = 0
      do {
        const run = alike(held, to - first, map.runLength(to, end - to))
        if (map.lookup(to) === headNumber) owned += run
        to += run
      } while (to < end && this.#fate(to, held?.[to - first] === 1, mode) === fate)
      if (fate === 'zeros') await this.#zero(from, to - from)
      // Blocks that nobody holds may lie in between: a hole in a hole costs nothing, a second system call would.
      if (fate === 'hole' && owned > 0) freed += await this.#punch(from, to - from, owned)
      from = to
    }
    return freed
  }

  /** What becomes of a block. `held`: a layer below the head holds it. */
  #fate(block: number, held: boolean, mode: Mode): 'hole' | 'zeros' | 'as it is' {
    const {map, headNumber} = this.context.stack
    if (mode === 'allocate') return 'zeros'
    const layer = map.lookup(block)
    if (layer === headNumber) return held ? 'zeros' : 'hole'
    // Nobody holds it, and yet it lies over something: over what a rebuild has still to bring.
    if (layer === NO_LAYER && !held) return 'hole'
    return mode === 'zero' ? 'zeros' : 'as it is'
  }

  async #punch(first: number, count: number, owned: number): Promise<number> {
    const {stack, flusher} = this.context
    const {head, map} = stack
    try {
      await punchHole(head.fd, first * BLOCK_BYTES, count * BLOCK_BYTES)
    } catch (error) {
      // Whatever part is a hole now reads as zeros from the head and from nothing alike.
      if (errnoOf(error) === 'ENOSPC') {
        await this.#zeroHeld(first, count)
        return 0
      }
      throw ioFailure(`discarding ${count * BLOCK_BYTES} bytes at ${first * BLOCK_BYTES} of ${head.path}`, error)
    }
    map.set(first, count, NO_LAYER)
    flusher.touch()
    return owned * BLOCK_BYTES
  }

  /** A full XFS has no room for the transaction that a hole needs. Then the blocks of the head at least become zeros. */
  async #zeroHeld(first: number, count: number): Promise<void> {
    const {map, headNumber} = this.context.stack
    for (let block = first; block < first + count; ) {
      const run = map.runLength(block, first + count - block)
      if (map.lookup(block) === headNumber) await this.#writeZeros(block, run)
      block += run
    }
  }

  /** Makes blocks zeros and the head their holder. */
  async #zero(first: number, count: number): Promise<void> {
    // Over data they are written out: space that was never written is what a power cut leaves of a write; see torn-writes.ts.
    const overData = !this.context.stack.below.isEmpty(first, count)
    if (count <= PLAIN_ZERO_BLOCKS || overData || !this.#zeroRangeWorks || !(await this.#zeroInFileSystem(first, count))) {
      await this.#writeZeros(first, count)
    }
  }

  async #writeZeros(first: number, count: number): Promise<void> {
    const end = Math.min(this.context.stack.sizeBytes, (first + count) * BLOCK_BYTES)
    for (let offset = first * BLOCK_BYTES; offset < end; offset += ZEROS.length) {
      this.writer.writeNow(ZEROS, 0, Math.min(ZEROS.length, end - offset), offset)
      // Gigabytes of zeros must not keep everyone else waiting.
      if (offset + ZEROS.length < end) await nextTurn()
    }
  }

  /** False where zeros have to be written instead. */
  async #zeroInFileSystem(first: number, count: number): Promise<boolean> {
    const {stack, flusher} = this.context
    const {head, map, headNumber} = stack
    const offset = first * BLOCK_BYTES
    // Whole blocks, also at the end of a volume that ends inside one: the size of the file stays.
    const length = count * BLOCK_BYTES
    try {
      await zeroRange(head.fd, offset, length)
    } catch (error) {
      const code = errnoOf(error)
      if (code === 'EOPNOTSUPP') this.#zeroRangeWorks = false
      else takeBack(this.context, first, count)
      // Blocks that the head holds have their space already, and zeros can be written there when nothing is left.
      const allHeld = map.lookup(first) === headNumber && map.runLength(first, count) === count
      if (code === 'EOPNOTSUPP' || (code === 'ENOSPC' && allHeld)) return false
      throw ioFailure(`zeroing ${length} bytes at ${offset} of ${head.path}`, error)
    }
    map.set(first, count, headNumber)
    flusher.touch()
    return true
  }
}

/** How many of the `limit` blocks from `index` on are all held below or all not. */
function alike(held: Uint8Array | undefined, index: number, limit: number): number {
  if (held === undefined) return limit
  let run = 1
  while (run < limit && held[index + run] === held[index]) run += 1
  return run
}

function nextTurn(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}
