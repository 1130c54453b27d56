import {fstatSync, statSync} from 'node:fs'
import {errnoOf} from '../errors.js'
import {lastErrno, libcFunction} from './libc.js'
import {systemError} from './system-error.js'

const LOCK_EX = 2
const LOCK_NB = 4
const EWOULDBLOCK = 11

const flock = libcFunction<(fd: number, operation: number) => number>('int flock(int fd, int operation)')

/**
 * Takes an exclusive flock(2) on an open file or directory, without waiting.
 * False when someone else holds it. It goes away with the file descriptor, so also when the process dies.
 */
export function tryLockFile(fd: number): boolean {
  if (flock(fd, LOCK_EX | LOCK_NB) === 0) return true
  const errno = lastErrno()
  if (errno === EWOULDBLOCK) return false
  throw systemError('flock', errno, 'locking a file')
}

/** Whether the file at `path` is the one that is open: false when it was removed, and perhaps made anew, by the holder of a lock that was waited for. */
export function isFileAt(path: string, fd: number): boolean {
  try {
    const [mine, there] = [fstatSync(fd, {bigint: true}), statSync(path, {bigint: true})]
    return mine.ino === there.ino && mine.dev === there.dev
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}
