import {closeSync, fdatasyncSync, ftruncateSync, openSync, writeSync} from 'node:fs'
import type {TcpAddress} from '../../../../src/lib/address.js'
import type {Random} from '../../support/random.js'

export const LOOPBACK: TcpAddress = {kind: 'tcp', host: '127.0.0.1', port: 0}

/** Writes a sparse file: data at these places, holes elsewhere. */
export function writeSparse(path: string, sizeBytes: number, data: readonly (readonly [offset: number, content: Buffer])[]): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, sizeBytes)
  for (const [offset, content] of data) writeSync(fd, content, 0, content.length, offset)
  fdatasyncSync(fd)
  closeSync(fd)
}

/** Some blocks of 4096 bytes with random content, alone and in runs. */
export function someBlocks(random: Random, sizeBytes: number, count: number): [offset: number, content: Buffer][] {
  return Array.from({length: count}, () => {
    const content = Buffer.alloc(4096 * (1 + random.below(random.oneIn(4) ? 700 : 5)))
    random.fill(content)
    const offset = 4096 * random.below(sizeBytes / 4096)
    return [offset, content.subarray(0, Math.min(content.length, sizeBytes - offset))]
  })
}
