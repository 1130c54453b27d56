import {open} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf} from '../lib/errors.js'
import {punchHole} from '../lib/sys/fallocate.js'
import {scannerFor} from '../lib/sys/file-extents.js'
import {ioFailure} from './io-failure.js'
import {dataIn, overlaps, type Range} from './purge/copy-data.js'
import type {Layer} from './layer-chain.js'
import {BLOCK_BYTES} from './sector-map.js'

/** Only the head is written, and the layer that was the head until just before may not have been synced. */
export const DOUBTFUL_LAYERS = 2

/**
 * After a power cut: a file system gives space to a write first, and says that it was written when it was. What was cut off in between
 * reads as zeros and counts as data, so it would hide what lies below. Such space is given back here, in the newest layers of
 * `chain` (oldest first), which nobody has open. What was never flushed is old again then.
 *
 * Nothing else is space that was never written and has data below it: zeros over data are written out (head-zeroer.ts).
 * False when a full disk does not let go of it: then it must not count as data, and the replica stays dirty until it is gone.
 */
export async function dropTornWrites(directory: string, chain: readonly Layer[]): Promise<boolean> {
  let all = true
  // Over nothing it makes no difference what a zero is made of.
  for (let index = Math.max(1, chain.length - DOUBTFUL_LAYERS); index < chain.length; index++) {
    const path = join(directory, chain[index]!.file)
    try {
      await dropIn(path, chain[index]!.sizeBytes, chain.slice(0, index).map(({file}) => join(directory, file)))
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC') throw ioFailure(`giving back what a power cut left in ${path}`, error)
      all = false
    }
  }
  return all
}

async function dropIn(path: string, sizeBytes: number, below: readonly string[]): Promise<void> {
  await using layer = await open(path, 'r+')
  await layer.datasync()
  const scanner = scannerFor(layer.fd)
  const torn: Range[] = []
  scanner.scanUnwritten(layer.fd, 0, sizeBytes, (offset, length) => torn.push({offset, length}))
  if (torn.length === 0) return
  for (const lower of below) {
    await using file = await open(lower, 'r')
    for (const range of torn) {
      for (const {offset, length} of overlaps([range], dataIn(scanner, file.fd, range))) {
        const from = Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES
        await punchHole(layer.fd, from, Math.ceil((offset + length - from) / BLOCK_BYTES) * BLOCK_BYTES)
      }
    }
  }
  await layer.datasync()
}
