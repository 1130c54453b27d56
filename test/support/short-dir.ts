import {mkdtempSync, rmSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import type {Test} from 'tap'

/** An empty folder with a path short enough for a unix socket, which has 107 bytes. Removed after the test. */
export function shortDir(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'lh-'))
  t.teardown(() => rmSync(path, {recursive: true, force: true}))
  return path
}
