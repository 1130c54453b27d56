import {mkdtempSync, rmSync, statfsSync} from 'node:fs'
import {join} from 'node:path'
import type {Test} from 'tap'

const TMPFS_MAGIC = 0x01021994

/** Kinds of file systems that behave differently under a replica. */
export const PLACES = ['disk', 'tmpfs'] as const
export type Place = (typeof PLACES)[number]

/** Why there is no such place here; undefined when there is. */
export function missingPlace(place: Place): string | undefined {
  if (place === 'disk') return undefined
  try {
    return statfsSync('/dev/shm').type === TMPFS_MAGIC ? undefined : '/dev/shm is not a tmpfs'
  } catch {
    return 'there is no /dev/shm'
  }
}

/** A path in a fresh directory, gone after the test, where nothing exists yet. */
export function freshPath(t: Test, place: Place = 'disk'): string {
  if (place === 'disk') return join(t.testdir({}), 'r1')
  const base = mkdtempSync('/dev/shm/longhorn-test-')
  t.teardown(() => {
    rmSync(base, {recursive: true, force: true})
  })
  return join(base, 'r1')
}
