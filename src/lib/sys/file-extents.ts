import {constants} from 'node:os'
import {bufferAddress} from './buffer-address.js'
import {lastErrno, libcFunction} from './libc.js'
import {systemError} from './system-error.js'

/**
 * Where a file has data. Layout of the request (linux/fiemap.h), little-endian:
 *
 *     struct fiemap         0 u64 start   8 u64 length   16 u32 flags   20 u32 mapped   24 u32 count   28 u32 reserved
 *     struct fiemap_extent  0 u64 logical   8 u64 physical   16 u64 length   24 u64 reserved[2]   40 u32 flags   44 u32 reserved[3]
 */
const HEADER_BYTES = 32
const EXTENT_BYTES = 56
const EXTENTS_PER_CALL = 1024
const FS_IOC_FIEMAP = 0xc020660b
const FLAG_SYNC = 1
const EXTENT_LAST = 1
const EXTENT_UNWRITTEN = 0x800

const SEEK_DATA = 3
const SEEK_HOLE = 4

const {EINTR, ENOTTY, ENXIO, EOPNOTSUPP} = constants.errno

const ioctl = libcFunction<(fd: number, request: number, argument: number) => number>(
  'int ioctl(int fd, unsigned long request, uintptr_t argument)',
)
const lseek = libcFunction<(fd: number, offset: number, whence: number) => number>('int64_t lseek(int fd, int64_t offset, int whence)')

const request = Buffer.alloc(HEADER_BYTES + EXTENT_BYTES * EXTENTS_PER_CALL)
const requestAddress = bufferAddress(request)
const words = new Uint32Array(request.buffer, request.byteOffset, request.byteLength / 4)

/** Receives one range that holds data: bytes, ascending, clipped to what was asked for. Must not scan another file. */
export type ExtentVisitor = (offset: number, length: number) => void

/** A way to ask a file system where a file has data in [offset, offset+length). */
export interface ExtentScanner {
  /** What the file system was asked with; goes into logs. */
  readonly method: 'FIEMAP' | 'SEEK_DATA'
  /** True when space that is allocated but was never written counts as data (it reads as zeros). */
  readonly unwrittenIsData: boolean
  /** `sync` first writes out what is still in memory, so that the answer is what the disk will have. */
  scan(fd: number, offset: number, length: number, visit: ExtentVisitor, sync?: boolean): void
  /** The same without space that was never written, after what is still in memory has been written out. */
  scanWritten(fd: number, offset: number, length: number, visit: ExtentVisitor): void
  /** Where there is space that was never written, after what is still in memory has been written out. */
  scanUnwritten(fd: number, offset: number, length: number, visit: ExtentVisitor): void
}

export const fiemapScanner: ExtentScanner = {method: 'FIEMAP', unwrittenIsData: true, scan: scanFiemap, scanWritten: scanFiemapWritten, scanUnwritten: scanFiemapUnwritten}
export const seekScanner: ExtentScanner = {method: 'SEEK_DATA', unwrittenIsData: false, scan: scanSeek, scanWritten: scanSeek, scanUnwritten: () => undefined}

/** The best scanner the file system of this file has: FIEMAP, or SEEK_DATA (tmpfs, NFS), which cannot see unwritten extents. */
export function scannerFor(fd: number): ExtentScanner {
  const errno = fiemap(fd, 0, 1, 0, 1)
  if (errno === 0) return fiemapScanner
  if (errno === EOPNOTSUPP || errno === ENOTTY) return seekScanner
  throw systemError('ioctl', errno, 'asking for the extents of a file')
}

function scanFiemap(fd: number, offset: number, length: number, visit: ExtentVisitor, sync = false): void {
  visitExtents(fd, offset, length, visit, sync, () => true)
}

function scanFiemapWritten(fd: number, offset: number, length: number, visit: ExtentVisitor): void {
  visitExtents(fd, offset, length, visit, true, flags => (flags & EXTENT_UNWRITTEN) === 0)
}

function scanFiemapUnwritten(fd: number, offset: number, length: number, visit: ExtentVisitor): void {
  visitExtents(fd, offset, length, visit, true, flags => (flags & EXTENT_UNWRITTEN) !== 0)
}

function visitExtents(fd: number, offset: number, length: number, visit: ExtentVisitor, sync: boolean, wanted: (flags: number) => boolean): void {
  const end = offset + length
  let position = offset
  let flags = sync ? FLAG_SYNC : 0
  while (position < end) {
    const errno = fiemap(fd, position, end - position, flags, EXTENTS_PER_CALL)
    if (errno !== 0) throw systemError('ioctl', errno, `asking for the extents of a file at ${position}`)
    flags = 0
    const mapped = word(5)
    const before = position
    for (let extent = 0; extent < mapped; extent++) {
      const at = (HEADER_BYTES + extent * EXTENT_BYTES) / 4
      const from = Math.max(position, word(at) + word(at + 1) * 0x1_0000_0000)
      const to = Math.min(end, word(at) + word(at + 1) * 0x1_0000_0000 + word(at + 4) + word(at + 5) * 0x1_0000_0000)
      if (to > from && wanted(word(at + 10))) visit(from, to - from)
      if ((word(at + 10) & EXTENT_LAST) !== 0) return
      position = Math.max(position, to)
    }
    if (position === before) return
  }
}

function scanSeek(fd: number, offset: number, length: number, visit: ExtentVisitor): void {
  const end = offset + length
  let position = offset
  while (position < end) {
    const from = seek(fd, position, SEEK_DATA)
    if (from < 0 || from >= end) return
    const hole = seek(fd, from, SEEK_HOLE)
    const to = hole < 0 ? end : Math.min(end, hole)
    visit(from, to - from)
    position = to
  }
}

/** The errno, 0 for success. The answer is in `words`. */
function fiemap(fd: number, offset: number, length: number, flags: number, count: number): number {
  words[0] = offset
  words[1] = offset / 0x1_0000_0000
  words[2] = length
  words[3] = length / 0x1_0000_0000
  words[4] = flags
  words[5] = 0
  words[6] = count
  words[7] = 0
  for (;;) {
    if (ioctl(fd, FS_IOC_FIEMAP, requestAddress) === 0) return 0
    const errno = lastErrno()
    if (errno !== EINTR) return errno
  }
}

/** The next position, or -1 when there is none. */
function seek(fd: number, offset: number, whence: number): number {
  const position = lseek(fd, offset, whence)
  if (position >= 0) return position
  const errno = lastErrno()
  if (errno === ENXIO) return -1
  throw systemError('lseek', errno, `looking for data at ${offset}`)
}

function word(index: number): number {
  return words[index] as number
}
