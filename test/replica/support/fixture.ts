import {execFileSync} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import type {Test} from 'tap'

const FIXTURE = fileURLToPath(new URL('../../fixtures/upstream-replica/', import.meta.url))

/** A copy of the replica directory that upstream wrote, with its holes. */
export function upstreamReplica(t: Test): string {
  const directory = t.testdir({})
  execFileSync('tar', ['--extract', '--sparse', '--file', join(FIXTURE, 'replica.tar'), '--directory', directory])
  return join(directory, 'r1')
}

/** SHA-256 of the volume as of each snapshot, and of the head, as upstream's initiator read it. */
export function upstreamSums(): Map<string, string> {
  const lines = readFileSync(join(FIXTURE, 'SHA256SUMS.tsv'), 'utf8').trim().split('\n')
  return new Map(lines.map(line => line.split('\t') as [string, string]))
}
