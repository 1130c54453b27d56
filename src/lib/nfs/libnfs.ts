// The functions of libnfs that we use, and what is known of its structures (nfsc/libnfs.h of 4.0 and 5.0, which agree in all of this).
//
//   struct nfs_stat_64    u64 each: 0 dev  8 ino  16 mode  24 nlink  32 uid  40 gid  48 rdev  56 size  64 blksize  72 blocks
//                         80 atime  88 mtime  96 ctime  104 atime_nsec  112 mtime_nsec  120 ctime_nsec  128 used
//   struct nfsdirent      0 next*  8 name*  16 u64 inode  24 u32 type  28 u32 mode  32 u64 size  40 atime  56 mtime {i64 s, i64 µs}  72 ctime …
//   struct pollfd         0 i32 fd  4 i16 events  6 i16 revents
import koffi, {type KoffiFunc, type LibraryHandle, type TypeObject} from 'koffi'
import {LonghornError} from '../errors.js'
import {bufferAddress} from '../sys/buffer-address.js'
import {libcFunction} from '../sys/libc.js'

/** Debian 13 has libnfs 5.0 (libnfs14), Debian 12 has 4.0 (libnfs13). From 6.0 on arguments of reads and writes come in another order. */
const KNOWN = [
  {name: 'libnfs.so.14', version4WriteBytes: 1024 ** 2},
  // Encodes calls of version 4 into 4096 bytes, whatever is to be written.
  {name: 'libnfs.so.13', version4WriteBytes: 3584},
]
const OTHERS = ['libnfs.so.16', 'libnfs.so.15', 'libnfs.so.12', 'libnfs.so.11', 'libnfs.so.8']

const STAT_BYTES = 136
const DIRENT_BYTES = 72
const TYPE_FILE = 1
const TYPE_DIRECTORY = 2
const MODE_TYPE = 0o170000
const MODE_FILE = 0o100000

export const POLLIN = 1
export const POLLOUT = 4

type Context = number
/** Begins a call; its result comes with the callback and `token`. Negative when it could not be begun. */
type Begin<Args extends unknown[]> = KoffiFunc<(context: Context, ...args: [...Args, callback: bigint, token: number]) => number>

export interface Libnfs {
  /** The most bytes that it can write with one call of version 4. */
  readonly version4WriteBytes: number
  /** Answers all calls, see onAnswer(). */
  readonly callback: bigint
  readonly init: () => Context
  readonly destroy: (context: Context) => void
  readonly getError: (context: Context) => string | null
  /** Takes settings over that have no function of their own; the result is to be freed, 0 for a failure. */
  readonly parseUrl: (context: Context, url: string) => number
  readonly destroyUrl: (url: number) => void
  readonly setClientName: (context: Context, name: string) => void
  readonly setVerifier: (context: Context, verifier: Uint8Array) => void
  readonly getFd: (context: Context) => number
  readonly whichEvents: (context: Context) => number
  readonly service: (context: Context, events: number) => number
  readonly readMax: (context: Context) => number
  readonly writeMax: (context: Context) => number
  readonly mount: Begin<[server: string, path: string]>
  readonly stat: Begin<[path: string]>
  readonly fstat: Begin<[file: number]>
  readonly open: Begin<[path: string, flags: number]>
  readonly create: Begin<[path: string, flags: number, mode: number]>
  readonly close: Begin<[file: number]>
  readonly pread: Begin<[file: number, offset: number, length: number]>
  readonly pwrite: Begin<[file: number, offset: number, length: number, address: number]>
  readonly fsync: Begin<[file: number]>
  readonly ftruncate: Begin<[file: number, length: number]>
  readonly mkdir: Begin<[path: string, mode: number]>
  readonly rmdir: Begin<[path: string]>
  readonly unlink: Begin<[path: string]>
  readonly rename: Begin<[from: string, to: string]>
  readonly openDirectory: Begin<[path: string]>
  readonly readDirectory: (context: Context, directory: number) => number
  readonly closeDirectory: (context: Context, directory: number) => void
}

/** What became of a call: `status` negative for a failure; `data` is the address of what it gave, valid during this call only. */
export type OnAnswer = (status: number, data: number) => void

const waiting = new Map<number, OnAnswer>()
let tokens = 0
let loaded: Libnfs | undefined

const memcpy = libcFunction<(to: number, from: number, length: number) => number>('uintptr_t memcpy(uintptr_t to, uintptr_t from, size_t length)')
const poll = libcFunction<(fds: Buffer, count: number, timeoutMs: number) => number>('int poll(void *fds, unsigned long count, int timeoutMs)')

/** Loads libnfs at the first call. UNSUPPORTED when it is not installed, or one that is not known. */
export function loadLibnfs(): Libnfs {
  if (loaded === undefined) {
    const {library, name} = openLibrary(KNOWN.map(({name}) => name))
    loaded = declare(library, KNOWN.find(known => known.name === name)!.version4WriteBytes)
  }
  return loaded
}

/** Looks for the library under these names. UNSUPPORTED when none of them is there. */
export function openLibrary(names: readonly string[]): {readonly library: LibraryHandle; readonly name: string} {
  const failures: unknown[] = []
  for (const name of names) {
    try {
      return {library: koffi.load(name), name}
    } catch (error) {
      failures.push(error)
    }
  }
  const other = OTHERS.find(name => isLoadable(name))
  const what = other === undefined ? 'the NFS client library is not installed' : `${other} has another interface than the one that is known here`
  throw new LonghornError(
    'UNSUPPORTED',
    `${what}: install the package libnfs13 (Debian 12) or libnfs14 (Debian 13) where the replica and this command run, or mount the export and use vfs:///MOUNTPOINT`,
    {},
    {cause: new AggregateError(failures, `tried ${names.join(', ')}`)},
  )
}

/** Remembers who is to be told what became of a call. The number is for the call. */
export function onAnswer(answer: OnAnswer): number {
  waiting.set(++tokens, answer)
  return tokens
}

/** Nobody is to be told any more. */
export function forgetAnswer(token: number): void {
  waiting.delete(token)
}

/** What is ready of POLLIN, POLLOUT, POLLERR, POLLHUP on a descriptor, without waiting. */
export function readyEvents(fd: number, events: number): number {
  const request = Buffer.alloc(8)
  request.writeInt32LE(fd, 0)
  request.writeInt16LE(events, 4)
  return poll(request, 1, 0) > 0 ? request.readInt16LE(6) : 0
}

/** A copy of `length` bytes at `address` to the beginning of `target`, which is as long as that. */
export function copyFrom(address: number, target: Uint8Array, length: number): void {
  if (length > target.length) throw new RangeError(`${length} bytes for a buffer of ${target.length}`)
  memcpy(bufferAddress(target), address, length)
}

/** A file's status as libnfs tells it. */
export interface NfsStatus {
  readonly isFile: boolean
  readonly sizeBytes: number
  readonly modifiedMs: number
}

export function readStatus(address: number): NfsStatus {
  const bytes = Buffer.alloc(STAT_BYTES)
  copyFrom(address, bytes, STAT_BYTES)
  return {
    isFile: (Number(bytes.readBigUInt64LE(16)) & MODE_TYPE) === MODE_FILE,
    sizeBytes: Number(bytes.readBigUInt64LE(56)),
    modifiedMs: Number(bytes.readBigUInt64LE(88)) * 1000 + Number(bytes.readBigUInt64LE(112)) / 1e6,
  }
}

export interface NfsEntry extends NfsStatus {
  readonly name: string
  readonly isDirectory: boolean
}

/** One entry of a directory that was opened. */
export function readEntry(address: number): NfsEntry {
  const bytes = Buffer.alloc(DIRENT_BYTES)
  copyFrom(address, bytes, DIRENT_BYTES)
  const type = bytes.readUInt32LE(24)
  return {
    name: koffi.decode.string(bytes.readBigUInt64LE(8)),
    isFile: type === TYPE_FILE,
    isDirectory: type === TYPE_DIRECTORY,
    sizeBytes: Number(bytes.readBigUInt64LE(32)),
    modifiedMs: Number(bytes.readBigInt64LE(56)) * 1000 + Number(bytes.readBigInt64LE(64)) / 1000,
  }
}

function isLoadable(name: string): boolean {
  try {
    koffi.load(name)
    return true
  } catch {
    return false
  }
}

function declare(library: LibraryHandle, version4WriteBytes: number): Libnfs {
  const type: TypeObject = koffi.proto('void NfsCallback(int status, uintptr_t context, uintptr_t data, uintptr_t token)')
  const call = (prototype: string) => library.func(prototype) as unknown as never
  const begin = (name: string, args: string) => call(`int ${name}(uintptr_t nfs, ${args}, NfsCallback *callback, uintptr_t token)`)
  return {
    version4WriteBytes,
    callback: koffi.register((status: number, _context: number, data: number, token: number) => {
      const answer = waiting.get(token)
      waiting.delete(token)
      answer?.(status, data)
    }, koffi.pointer(type)),
    init: call('uintptr_t nfs_init_context()'),
    destroy: call('void nfs_destroy_context(uintptr_t nfs)'),
    getError: call('const char *nfs_get_error(uintptr_t nfs)'),
    parseUrl: call('uintptr_t nfs_parse_url_dir(uintptr_t nfs, const char *url)'),
    destroyUrl: call('void nfs_destroy_url(uintptr_t url)'),
    setClientName: call('void nfs4_set_client_name(uintptr_t nfs, const char *name)'),
    setVerifier: call('void nfs4_set_verifier(uintptr_t nfs, const void *verifier)'),
    getFd: call('int nfs_get_fd(uintptr_t nfs)'),
    whichEvents: call('int nfs_which_events(uintptr_t nfs)'),
    service: call('int nfs_service(uintptr_t nfs, int events)'),
    readMax: call('uint64_t nfs_get_readmax(uintptr_t nfs)'),
    writeMax: call('uint64_t nfs_get_writemax(uintptr_t nfs)'),
    mount: begin('nfs_mount_async', 'const char *server, const char *path'),
    stat: begin('nfs_stat64_async', 'const char *path'),
    fstat: begin('nfs_fstat64_async', 'uintptr_t file'),
    open: begin('nfs_open_async', 'const char *path, int flags'),
    create: begin('nfs_create_async', 'const char *path, int flags, int mode'),
    close: begin('nfs_close_async', 'uintptr_t file'),
    pread: begin('nfs_pread_async', 'uintptr_t file, uint64_t offset, uint64_t length'),
    pwrite: begin('nfs_pwrite_async', 'uintptr_t file, uint64_t offset, uint64_t length, uintptr_t data'),
    fsync: begin('nfs_fsync_async', 'uintptr_t file'),
    ftruncate: begin('nfs_ftruncate_async', 'uintptr_t file, uint64_t length'),
    mkdir: begin('nfs_mkdir2_async', 'const char *path, int mode'),
    rmdir: begin('nfs_rmdir_async', 'const char *path'),
    unlink: begin('nfs_unlink_async', 'const char *path'),
    rename: begin('nfs_rename_async', 'const char *from, const char *to'),
    openDirectory: begin('nfs_opendir_async', 'const char *path'),
    readDirectory: call('uintptr_t nfs_readdir(uintptr_t nfs, uintptr_t directory)'),
    closeDirectory: call('void nfs_closedir(uintptr_t nfs, uintptr_t directory)'),
  }
}
