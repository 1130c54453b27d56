import {statfs} from 'node:fs/promises'
import {errnoOf, LonghornError} from '../lib/errors.js'
import {punchHoleSync} from '../lib/sys/fallocate.js'
import type {LayerFile} from './layer-file.js'
import {BLOCK_BYTES} from './sector-map.js'

/**
 * A file system with larger blocks (64 KiB pages, some NFS and ZFS set-ups) reports all of its block as data after
 * 4096 bytes were written: the rest, zeros, would hide the layer below. UNSUPPORTED there.
 */
export async function checkBlockSize(directory: string): Promise<void> {
  const {bsize} = await statfs(directory)
  if (bsize <= BLOCK_BYTES) return
  throw new LonghornError('UNSUPPORTED', `the file system of ${directory} has blocks of ${bsize} bytes; at most ${BLOCK_BYTES} can be used`)
}

/** Undoing a failed write needs holes, so better no replica at all than one on a file system without them: UNSUPPORTED. */
export function checkPunching(head: LayerFile, sizeBytes: number): void {
  try {
    punchHoleSync(head.fd, Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES, BLOCK_BYTES)
  } catch (error) {
    if (errnoOf(error) !== 'EOPNOTSUPP') throw error
    throw new LonghornError('UNSUPPORTED', `the file system of ${head.path} cannot punch holes into files; use ext4 or XFS`, {}, {cause: error})
  }
}
