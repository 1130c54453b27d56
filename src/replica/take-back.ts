import {errnoOf} from '../lib/errors.js'
import {punchHoleSync} from '../lib/sys/fallocate.js'
import {writeAt} from '../lib/sys/positioned-io.js'
import type {HeadContext} from './head-context.js'
import {ioFailure} from './io-failure.js'
import {BLOCK_BYTES} from './sector-map.js'

/**
 * After a failed change of `count` blocks from `first` on: takes back what may have reached blocks that the head did not
 * hold, so that a reopen finds what the map says. If even that fails nobody knows what the head holds, and the gate shuts.
 */
export function takeBack(context: HeadContext, first: number, count: number): void {
  const {map, head, headNumber} = context.stack
  const end = first + count
  // A flush that follows must make this durable like any other change.
  context.flusher.touch()
  try {
    for (let block = first; block < end; ) {
      const run = map.runLength(block, end - block)
      if (map.lookup(block) !== headNumber) takeBackRun(context, block, run)
      block += run
    }
  } catch (error) {
    context.gate.fail(ioFailure(`taking back a failed write to ${head.path}`, error))
  }
}

function takeBackRun(context: HeadContext, first: number, count: number): void {
  try {
    punchHoleSync(context.stack.head.fd, first * BLOCK_BYTES, count * BLOCK_BYTES)
  } catch (error) {
    // A full XFS has no room for the transaction that a hole needs.
    // During a rebuild what was there before is not here to be put back.
    if (errnoOf(error) !== 'ENOSPC' || context.stack.below.incomplete) throw error
    keepOldContent(context, first, count)
  }
}

/**
 * The other way back: where the failed write did get space, old content is written into it, which needs none.
 * From then on the head holds those blocks. Throws the error of the disk.
 */
export function keepOldContent(context: HeadContext, first: number, count: number): void {
  const {stack, reader} = context
  const {scanner, head, map, headNumber, sizeBytes} = stack
  const allocated: number[] = []
  scanner.scan(head.fd, first * BLOCK_BYTES, count * BLOCK_BYTES, (offset, length) => {
    for (let block = Math.floor(offset / BLOCK_BYTES); block * BLOCK_BYTES < offset + length; block++) allocated.push(block)
  })
  const old = Buffer.alloc(BLOCK_BYTES)
  for (const block of allocated) {
    const offset = block * BLOCK_BYTES
    const length = Math.min(BLOCK_BYTES, sizeBytes - offset)
    reader.readSync(old, 0, length, offset)
    for (let done = 0; done < length; ) done += writeAt(head.fd, old, done, length - done, offset + done)
    map.set(block, 1, headNumber)
  }
}
