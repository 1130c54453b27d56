import type {FileHandle} from 'node:fs/promises'
import {setTimeout as sleep} from 'node:timers/promises'
import {errnoOf, LonghornError, messageOf} from '../../lib/errors.js'
import {punchHoleSync} from '../../lib/sys/fallocate.js'
import type {ExtentScanner} from '../../lib/sys/file-extents.js'
import {readBesideBad} from '../read-back.js'

/** Bytes [offset, offset+length) of a file. */
export interface Range {
  readonly offset: number
  readonly length: number
}

/** How much of a file is looked at in one go: what is remembered of it stays small however fragmented it is. */
export const WINDOW_BYTES = 64 * 1024 * 1024
const CHUNK_BYTES = 1024 * 1024

/** The most that a pause lasts, in milliseconds: after a stall of the disk there is nothing to make good. */
const LONGEST_PAUSE_MS = 1000

/** Keeps a background copy to a share of the time, and ends it when it is told to. */
export class Pace {
  /** `share`: of the time that it may be at work, over 0 to 1; asked after each piece where it changes. */
  constructor(
    readonly share: number | (() => number),
    readonly signal: AbortSignal,
  ) {}

  /** Does one piece of work, then pauses as long as its share wants it. Throws the signal's reason. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    this.signal.throwIfAborted()
    const before = performance.now()
    const result = await work()
    const spentMs = performance.now() - before
    const share = typeof this.share === 'number' ? this.share : this.share()
    const pauseMs = Math.min(LONGEST_PAUSE_MS, spentMs / share - spentMs)
    // What ends the pause early is looked at by the next piece.
    if (pauseMs >= 1) await sleep(pauseMs, undefined, {signal: this.signal}).catch(() => undefined)
    return result
  }
}

/** Where a file has data, within a window. Neighbours merged. */
export function dataIn(scanner: ExtentScanner, fd: number, {offset, length}: Range): Range[] {
  const ranges: Range[] = []
  scanner.scan(
    fd,
    offset,
    length,
    (from, bytes) => {
      const last = ranges.at(-1)
      if (last !== undefined && last.offset + last.length === from) ranges[ranges.length - 1] = {offset: last.offset, length: last.length + bytes}
      else ranges.push({offset: from, length: bytes})
    },
    true,
  )
  return ranges
}

/** The parts of `ranges` that none of `holes` covers. Both ascending, without overlaps among themselves. */
export function without(ranges: readonly Range[], holes: readonly Range[]): Range[] {
  const result: Range[] = []
  let next = 0
  for (const {offset, length} of ranges) {
    const end = offset + length
    let at = offset
    while (next < holes.length && holes[next]!.offset + holes[next]!.length <= at) next += 1
    for (let index = next; index < holes.length && holes[index]!.offset < end; index++) {
      const hole = holes[index]!
      if (hole.offset > at) result.push({offset: at, length: hole.offset - at})
      at = Math.max(at, hole.offset + hole.length)
    }
    if (at < end) result.push({offset: at, length: end - at})
  }
  return result
}

/** The parts of `ranges` that `others` cover. Both ascending, without overlaps among themselves. */
export function overlaps(ranges: readonly Range[], others: readonly Range[]): Range[] {
  return without(ranges, without(ranges, others))
}

/** Copies ranges from one file to the same places of another. `copied` is told the bytes as they are done. */
export async function copyRanges(from: FileHandle, to: FileHandle, ranges: readonly Range[], pace: Pace, copied: (bytes: number) => void): Promise<void> {
  await copyInChunks(from, ranges, pace, copied, (chunk, bytes, offset) => writeFully(to, chunk, bytes, offset))
}

/**
 * The same for ranges that are holes of `to`. When a write fails they are holes again, or hold what was to be copied: a file
 * system may leave zeros behind, and those would hide what shines through a hole.
 * CORRUPT when neither can be had: then nobody knows what `to` hides.
 */
export async function fillHoles(from: FileHandle, to: FileHandle, ranges: readonly Range[], pace: Pace, scanner: ExtentScanner, copied: (bytes: number) => void): Promise<void> {
  await copyInChunks(from, ranges, pace, copied, async (chunk, bytes, offset) => {
    try {
      await writeFully(to, chunk, bytes, offset)
    } catch (error) {
      await takeBack(to, chunk, {offset, length: bytes}, scanner)
      throw error
    }
  })
}

async function takeBack(to: FileHandle, chunk: Buffer, range: Range, scanner: ExtentScanner): Promise<void> {
  try {
    punchHoleSync(to.fd, range.offset, range.length)
  } catch (error) {
    try {
      // A full XFS has no room for the transaction that a hole needs. Where it did give space, data can be written.
      if (errnoOf(error) !== 'ENOSPC') throw error
      for (const {offset, length} of dataIn(scanner, to.fd, range)) await writeFully(to, chunk.subarray(offset - range.offset), length, offset)
    } catch (failure) {
      throw new LonghornError('CORRUPT', `a failed copy to ${range.length} bytes at ${range.offset} could not be taken back: ${messageOf(failure)}`, {}, {cause: failure})
    }
  }
}

async function copyInChunks(
  from: FileHandle,
  ranges: readonly Range[],
  pace: Pace,
  copied: (bytes: number) => void,
  write: (chunk: Buffer, bytes: number, offset: number) => Promise<void>,
): Promise<void> {
  const chunk = Buffer.alloc(CHUNK_BYTES)
  for (const {offset, length} of ranges) {
    for (let done = 0; done < length; done += CHUNK_BYTES) {
      const bytes = Math.min(CHUNK_BYTES, length - done)
      await pace.run(async () => {
        const read = await readFully(from, chunk, bytes, offset + done)
        await write(chunk, read, offset + done)
      })
      copied(bytes)
    }
  }
}

/** Up to the end of the file; the bytes read. */
async function readFully(file: FileHandle, into: Buffer, bytes: number, offset: number): Promise<number> {
  try {
    return await readCached(file, into, bytes, offset)
  } catch (error) {
    // Something bad beside it may be hidden by a layer above: nobody needs it, and scrub leaves it as it is.
    into.set(await readBesideBad(file.fd, bytes, offset, error))
    return bytes
  }
}

async function readCached(file: FileHandle, into: Buffer, bytes: number, offset: number): Promise<number> {
  let done = 0
  while (done < bytes) {
    const {bytesRead} = await file.read(into, done, bytes - done, offset + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

async function writeFully(file: FileHandle, from: Buffer, bytes: number, offset: number): Promise<void> {
  for (let done = 0; done < bytes; ) done += (await file.write(from, done, bytes - done, offset + done)).bytesWritten
}
