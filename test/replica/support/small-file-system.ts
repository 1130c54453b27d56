import {execFileSync} from 'node:child_process'
import {mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import type {Test} from 'tap'

export const SMALL_FILE_SYSTEMS = ['ext4', 'xfs', 'tmpfs'] as const

/**
 * Mounts a file system that is soon full. Undefined where this process may not, or the tools are missing; the test is then
 * skipped with that reason. Unmounted after the test.
 */
export function mountSmall(t: Test, kind: (typeof SMALL_FILE_SYSTEMS)[number], megabytes: number): string | undefined {
  const base = mkdtempSync(join(tmpdir(), 'longhorn-small-'))
  const path = join(base, 'mounted')
  mkdirSync(path)
  t.teardown(() => {
    rmSync(base, {recursive: true, force: true})
  })
  try {
    if (kind === 'tmpfs') {
      run('mount', '-t', 'tmpfs', '-o', `size=${megabytes}m`, 'none', path)
    } else {
      const image = join(base, 'image')
      writeFileSync(image, '')
      truncateSync(image, megabytes * 1024 ** 2)
      run(`mkfs.${kind}`, '-q', ...(kind === 'ext4' ? ['-m', '0', '-F'] : ['-f']), image)
      run('mount', '-o', 'loop', image, path)
    }
  } catch (error) {
    t.pass(`no small ${kind}`, {skip: `cannot mount one: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`})
    return undefined
  }
  t.teardown(() => {
    run('umount', '--lazy', path)
  })
  return path
}

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, {stdio: 'ignore'})
}
