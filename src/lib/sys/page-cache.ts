import {libcFunction} from './libc.js'
import {systemError} from './system-error.js'

const RANDOM = 1
const DONTNEED = 4

const fadvise = libcFunction<(fd: number, offset: number, length: number, advice: number) => number>(
  'int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)',
)

/**
 * Has the kernel forget what it holds in memory of [offset, offset+length) of a file, as far as that is on the disk already:
 * the next read asks the disk. Bytes; the whole pages inside. A hint, which a file system in memory ignores.
 */
export function forgetCached(fd: number, offset: number, length: number): void {
  // Its result is the errno itself.
  const errno = fadvise(fd, offset, length, DONTNEED)
  if (errno !== 0) throw systemError('posix_fadvise', errno, `forgetting ${length} bytes at ${offset}`)
}

/**
 * Has reads by this descriptor ask the disk for what they are given, and for nothing beside it: a read that is made longer fails as a
 * whole when what follows is bad.
 */
export function readNothingAhead(fd: number): void {
  const errno = fadvise(fd, 0, 0, RANDOM)
  if (errno !== 0) throw systemError('posix_fadvise', errno, 'reading nothing ahead')
}
