import {closeSync, openSync, readdirSync, readlinkSync} from 'node:fs'
import {libcFunction} from '../../../src/lib/sys/libc.js'

const dup2 = libcFunction<(from: number, to: number) => number>('int dup2(int from, int to)')

/**
 * Makes the open descriptors of `path` in this process refer to /dev/full: every write fails with ENOSPC, and holes and
 * syncs fail as well. A disk that breaks under an open replica.
 */
export function breakOpenFile(path: string): void {
  const broken = openSync('/dev/full', 'r+')
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name)
    if (linkOf(fd) === path) dup2(broken, fd)
  }
  closeSync(broken)
}

function linkOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return undefined
  }
}
