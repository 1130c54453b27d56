import {createHash} from 'node:crypto'
import {messageOf} from '../../lib/errors.js'
import {BLOCK_BYTES, type BlockRun} from '../../protocol/scrub-units.js'
import type {LayerAgent} from './layer-agent.js'
import {offsetOf} from './repair.js'
import type {BlockCopy} from './verdict.js'

/** Blocks between two that are wanted and are read with them: a request of its own takes longer than 64 KiB do. */
const MOST_BETWEEN = 16

/** A block that a replica has right. */
export interface Wanted {
  /** Number within its region. */
  readonly block: number
  /** SHA-256 in hexadecimal that it was found to have. */
  readonly digest: string
}

/** A block as it is to be, or why it could not be had. */
export type GoodBlock = {readonly data: Buffer} | {readonly reason: string}

/** What good blocks are read from; as LayerAgent.read(). */
export type BlockSource = Pick<LayerAgent, 'read' | 'signal'>

/**
 * Reads blocks of a region, ascending, from a replica that has them right: a few long reads, each block held against its digest. What is near
 * together is read together, unless that replica cannot read something in between (`copies` is what it said of the region's blocks). A read of
 * many that fails is done again block by block. Throws only the signal's reason.
 */
export async function readGood(source: BlockSource, layer: string, region: number, wanted: readonly Wanted[], copies: readonly BlockCopy[]): Promise<Map<number, GoodBlock>> {
  const found = new Map<number, GoodBlock>()
  for (const together of groups(wanted, copies)) {
    const last = together.at(-1)!
    const run = {first: together[0]!.block, count: last.block - together[0]!.block + 1}
    try {
      take(found, await readRun(source, layer, region, run), run.first, together)
      continue
    } catch (error) {
      source.signal.throwIfAborted()
      if (together.length === 1) found.set(last.block, {reason: messageOf(error)})
    }
    if (together.length > 1) for (const one of together) await readAlone(source, layer, region, one, found)
  }
  return found
}

async function readAlone(source: BlockSource, layer: string, region: number, one: Wanted, found: Map<number, GoodBlock>): Promise<void> {
  try {
    take(found, await readRun(source, layer, region, {first: one.block, count: 1}), one.block, [one])
  } catch (error) {
    source.signal.throwIfAborted()
    found.set(one.block, {reason: messageOf(error)})
  }
}

function readRun(source: BlockSource, layer: string, region: number, {first, count}: BlockRun): Promise<Buffer> {
  return source.read(layer, offsetOf(region, first), count * BLOCK_BYTES)
}

/** Nothing is taken that is not what was agreed on. */
function take(found: Map<number, GoodBlock>, data: Buffer, first: number, wanted: readonly Wanted[]): void {
  for (const {block, digest} of wanted) {
    const bytes = data.subarray((block - first) * BLOCK_BYTES, (block - first + 1) * BLOCK_BYTES)
    const same = createHash('sha256').update(bytes).digest('hex') === digest
    found.set(block, same ? {data: bytes} : {reason: 'it has changed since it was compared'})
  }
}

function groups(wanted: readonly Wanted[], copies: readonly BlockCopy[]): Wanted[][] {
  const result: Wanted[][] = []
  for (const one of wanted) {
    const before = result.at(-1)?.at(-1)?.block ?? -Infinity
    const between = copies.slice(before + 1, one.block)
    if (one.block - before - 1 <= MOST_BETWEEN && between.every(({digest}) => digest !== undefined)) result.at(-1)!.push(one)
    else result.push([one])
  }
  return result
}
