// Sets where a loop device ends: `node loop-size-main.js loop3 BYTES`. losetup cannot do this to a device in use.
// A process of its own, as the kernel first waits for all I/O of the device, and that can hang.
import {closeSync, constants, openSync} from 'node:fs'
import {lastErrno, libcFunction} from '../../../lib/sys/libc.js'
import {systemError} from '../../../lib/sys/system-error.js'

const LOOP_SET_STATUS64 = 0x4c04
const LOOP_GET_STATUS64 = 0x4c05
/** struct loop_info64, in the machine's byte order: u64 device, inode, rdevice, offset, then u64 sizelimit at 32; 232 bytes in all. */
const INFO_BYTES = 232
const SIZE_LIMIT_AT = 32
/** Kernels before 5.9 say this while the device's cache is not empty; it is dropped on every attempt. */
const EAGAIN = 11
const TRIES = 100

const ioctl = libcFunction<(fd: number, request: number, info: Uint8Array) => number>('int ioctl(int fd, unsigned long request, _Inout_ uint8_t *info)')

const [name = '', bytes = ''] = process.argv.slice(2)
const fd = openSync(`/dev/${name}`, constants.O_RDWR)
const info = new BigUint64Array(INFO_BYTES / 8)
const raw = new Uint8Array(info.buffer)
call(LOOP_GET_STATUS64, 'asking for its status')
info[SIZE_LIMIT_AT / 8] = BigInt(bytes)
call(LOOP_SET_STATUS64, 'setting its size')
closeSync(fd)

function call(request: number, doing: string): void {
  for (let left = TRIES; ioctl(fd, request, raw) !== 0; left--) {
    const errno = lastErrno()
    if (errno !== EAGAIN || left === 0) throw systemError('ioctl', errno, `${name}: ${doing}`)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
  }
}
