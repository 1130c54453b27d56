import type {Flusher} from './flusher.js'
import type {Gate} from './gate.js'
import type {LayerReader} from './layer-reader.js'
import type {LayerStack} from './layer-stack.js'
import type {RangeLock} from './range-lock.js'
import type {RevisionCounter} from './revision-counter.js'
import {BLOCK_BYTES} from './sector-map.js'

/** What every change of the head works with. */
export interface HeadContext {
  readonly stack: LayerStack
  readonly reader: LayerReader
  readonly locks: RangeLock
  readonly flusher: Flusher
  readonly gate: Gate
  readonly counter: RevisionCounter | undefined
}

/** What a flush makes durable: the head, and the revision counter where there is one. File descriptors. */
export function syncedFiles({stack, counter}: Pick<HeadContext, 'stack' | 'counter'>): number[] {
  return counter === undefined ? [stack.head.fd] : [stack.head.fd, counter.fd]
}

/** Throws RangeError unless [offset, offset+length) lies inside the volume. Bytes. */
export function checkRange(stack: LayerStack, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= stack.sizeBytes) return
  throw new RangeError(`${length} bytes at ${offset} are not inside the volume of ${stack.sizeBytes}`)
}

/** The block that a byte lies in. */
export function firstBlock(offset: number): number {
  return Math.floor(offset / BLOCK_BYTES)
}

/** The first block wholly behind a range. */
export function endBlock(offset: number, length: number): number {
  return Math.ceil((offset + length) / BLOCK_BYTES)
}

/** The blocks in a range, which begins with one, that the head holds: whatever lies below them cannot be seen. Bytes. */
export function heldByHead({map, headNumber, sizeBytes}: LayerStack, offset: number, length: number): {offset: number; length: number}[] {
  const end = endBlock(0, Math.min(offset + length, sizeBytes))
  const ranges: {offset: number; length: number}[] = []
  for (let block = firstBlock(offset); block < end; ) {
    const run = map.runLength(block, end - block)
    if (map.lookup(block) === headNumber) ranges.push({offset: block * BLOCK_BYTES, length: run * BLOCK_BYTES})
    block += run
  }
  return ranges
}
