import {cpSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import type {Test} from 'tap'
import {VfsStore} from '../../src/backup/store/vfs.js'

const FIXTURE = fileURLToPath(new URL('../../../test/fixtures/backup/upstream-store/', import.meta.url))

export interface RestoredSum {
  readonly volume: string
  readonly backup: string
  readonly sizeBytes: number
  readonly sha256: string
}

/** A copy of a store that upstream wrote. */
export function copyUpstreamStore(t: Test): VfsStore {
  const root = join(t.testdir(), 'store')
  cpSync(join(FIXTURE, 'store'), root, {recursive: true})
  return new VfsStore(root, `vfs://${root}`)
}

/** What upstream restores each of its backups to. */
export function restoredSums(): RestoredSum[] {
  return readFileSync(join(FIXTURE, 'SHA256SUMS.tsv'), 'utf8')
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
    .map(line => {
      const [volume = '', backup = '', size, sha256 = ''] = line.split('\t')
      return {volume, backup, sizeBytes: Number(size), sha256}
    })
}
