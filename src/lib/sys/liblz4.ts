// The C library of LZ4, where this machine has it: Debian, Ubuntu, Fedora and RHEL do, as systemd and package managers need it.
// It works in the thread pool on memory that we give it. An addon gives each result memory of its own, which only a garbage collection
// returns: at the rate of a backup that was 300 MiB more than is needed.
import koffi, {type KoffiFunc, type LibraryHandle} from 'koffi'
import {bufferAddress} from './buffer-address.js'

const NAMES = ['liblz4.so.1', 'liblz4.so']

/** LZ4F_VERSION of lz4frame.h: the same since 1.7.3. */
const API_VERSION = 100

// LZ4F_preferences_t: u32 block size (7: 4 MiB) | u32 mode (1: independent) | u32 checksum of the content (1: yes) | what is left is the default.
const preferences = Buffer.alloc(56)
preferences.writeUInt32LE(7, 0)
preferences.writeUInt32LE(1, 4)
preferences.writeUInt32LE(1, 8)

/** LZ4 frames (LZ4 Frame Format 1.6), in the thread pool. */
export interface Lz4 {
  /** A frame with independent blocks of 4 MiB and a checksum of the content: in `room`, where that is large enough. `data` must not change meanwhile. */
  compress(data: Uint8Array, room?: Buffer): Promise<Buffer>
  /** What a frame holds, up to `maxBytes`: in `room`, where that is large enough; room for 4 MiB saves a copy. Throws for one that is damaged, breaks off, or holds more. */
  decompress(frame: Uint8Array, maxBytes: number, room?: Buffer): Promise<Buffer>
}

/** Undefined where there is no such library. */
export const lz4 = load()

function load(): Lz4 | undefined {
  for (const name of NAMES) {
    try {
      return declare(koffi.load(name))
    } catch {
      // Not here, or too old: the next name, or whatever the caller has instead.
    }
  }
  return undefined
}

function declare(library: LibraryHandle): Lz4 {
  type Compress = (to: number, capacity: number, from: number, bytes: number, preferences: number) => number
  type Decompress = (context: number, to: number, toBytes: number, from: number, fromBytes: number, options: number) => number
  const bound = library.func('size_t LZ4F_compressFrameBound(size_t bytes, uintptr_t preferences)') as KoffiFunc<(bytes: number, preferences: number) => number>
  const compress = library.func('size_t LZ4F_compressFrame(uintptr_t to, size_t capacity, uintptr_t from, size_t bytes, uintptr_t preferences)') as KoffiFunc<Compress>
  const decompress = library.func('size_t LZ4F_decompress(uintptr_t context, uintptr_t to, uintptr_t toBytes, uintptr_t from, uintptr_t fromBytes, uintptr_t options)') as KoffiFunc<Decompress>
  const create = library.func('size_t LZ4F_createDecompressionContext(uintptr_t context, unsigned int version)') as KoffiFunc<(context: number, version: number) => number>
  const free = library.func('size_t LZ4F_freeDecompressionContext(uintptr_t context)') as KoffiFunc<(context: number) => number>
  const isError = library.func('unsigned int LZ4F_isError(size_t code)') as KoffiFunc<(code: number | bigint) => number>
  const errorName = library.func('const char *LZ4F_getErrorName(size_t code)') as KoffiFunc<(code: number | bigint) => string>
  const preferencesAddress = bufferAddress(preferences)

  const checked = (code: number | bigint): number => {
    if (isError(code) !== 0) throw new Error(errorName(code))
    return Number(code)
  }
  return {
    async compress(data, room) {
      const needed = checked(bound(data.length, preferencesAddress))
      const frame = room !== undefined && room.length >= needed ? room : Buffer.allocUnsafeSlow(needed)
      const code = await inPool(done => compress.async(bufferAddress(frame), frame.length, bufferAddress(data), data.length, preferencesAddress, done))
      return frame.subarray(0, checked(code))
    },

    async decompress(frame, maxBytes, room) {
      const data = room !== undefined && room.length >= maxBytes ? room : Buffer.allocUnsafeSlow(maxBytes)
      // The context's address, then how much there is to write and to read; the library puts in how much it did.
      const numbers = new BigUint64Array([0n, BigInt(data.length), BigInt(frame.length)])
      const at = bufferAddress(new Uint8Array(numbers.buffer))
      checked(create(at, API_VERSION))
      const context = Number(numbers[0])
      try {
        const code = await inPool(done => decompress.async(context, bufferAddress(data), at + 8, bufferAddress(frame), at + 16, 0, done))
        const more = `the frame holds more than ${maxBytes} bytes`
        if (checked(code) !== 0) throw new Error(numbers[2] === BigInt(frame.length) ? 'the frame breaks off' : more)
        if (Number(numbers[1]) > maxBytes) throw new Error(more)
        return data.subarray(0, Number(numbers[1]))
      } finally {
        free(context)
      }
    },
  }
}

/** The closures of `begin` keep the buffers alive that the call works on. */
function inPool(begin: (done: (error: Error | null, code: number) => void) => void): Promise<number | bigint> {
  return new Promise((resolve, reject) => begin((error, code) => (error === null ? resolve(code) : reject(error))))
}
