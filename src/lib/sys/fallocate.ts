import {lastErrno, libcFunction} from './libc.js'
import {systemError} from './system-error.js'

const KEEP_SIZE = 0x01
const PUNCH_HOLE = 0x02
const ZERO_RANGE = 0x10

const fallocate = libcFunction<(fd: number, mode: number, offset: number, length: number) => number>(
  'int fallocate(int fd, int mode, int64_t offset, int64_t length)',
)

/** Gives the space of [offset, offset+length) back; the file reads zeros there and has no extent. Bytes. */
export function punchHoleSync(fd: number, offset: number, length: number): void {
  if (fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length) === 0) return
  throw systemError('fallocate', lastErrno(), punching(offset, length))
}

/** As `punchHoleSync`, in the thread pool: a long range with many extents takes milliseconds to seconds. */
export function punchHole(fd: number, offset: number, length: number): Promise<void> {
  return inThreadPool(fd, PUNCH_HOLE | KEEP_SIZE, offset, length, punching)
}

/** Makes [offset, offset+length) zeros that are allocated: space is reserved, extents are marked unwritten. Bytes. */
export function zeroRange(fd: number, offset: number, length: number): Promise<void> {
  return inThreadPool(fd, ZERO_RANGE | KEEP_SIZE, offset, length, zeroing)
}

function inThreadPool(
  fd: number,
  mode: number,
  offset: number,
  length: number,
  doing: (offset: number, length: number) => string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    fallocate.async(fd, mode, offset, length, (error, result) => {
      // koffi carries errno over from the thread that made the call; it must be read before anything else.
      const errno = result === 0 ? 0 : lastErrno()
      if (error !== null && error !== undefined) reject(new Error('fallocate could not be called', {cause: error}))
      else if (result !== 0) reject(systemError('fallocate', errno, doing(offset, length)))
      else resolve()
    })
  })
}

function punching(offset: number, length: number): string {
  return `punching a hole of ${length} bytes at ${offset}`
}

function zeroing(offset: number, length: number): string {
  return `zeroing ${length} bytes at ${offset}`
}
