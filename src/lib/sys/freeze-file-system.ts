import {lastErrno, libcFunction} from './libc.js'
import {systemError} from './system-error.js'

/** linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int). */
const FIFREEZE = 0xc0045877
const FITHAW = 0xc0045878

const ioctl = libcFunction<(fd: number, request: number, argument: number) => number>('int ioctl(int fd, unsigned long request, uintptr_t argument)')

/**
 * Writes everything out that a mounted file system has in memory, and lets nobody change it until it is thawed; `fd` is any file on it.
 * Blocks for as long as that takes. Throws SystemError: EBUSY when it is frozen already, EOPNOTSUPP when it cannot be.
 */
export function freezeFileSystem(fd: number): void {
  call(fd, FIFREEZE, 'freezing a file system')
}

/** Ends it. Throws SystemError: EINVAL when it is not frozen. */
export function thawFileSystem(fd: number): void {
  call(fd, FITHAW, 'thawing a file system')
}

function call(fd: number, request: number, doing: string): void {
  if (ioctl(fd, request, 0) !== 0) throw systemError('ioctl', lastErrno(), doing)
}
