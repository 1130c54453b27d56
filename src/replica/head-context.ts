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
