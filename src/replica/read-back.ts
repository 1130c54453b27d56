import {constants} from 'node:fs'
import {open, type FileHandle} from 'node:fs/promises'
import {errnoOf} from '../lib/errors.js'
import {bufferAddress} from '../lib/sys/buffer-address.js'
import {forgetCached, readNothingAhead} from '../lib/sys/page-cache.js'

/** What disks and file systems want direct I/O to be a multiple of, at most. */
const ALIGNMENT = 4096

/**
 * Reads a file from the disk, past what the kernel holds in memory: that may be in pieces which are larger than what is asked for, and cannot
 * be read when anything in them is bad. On a file system without direct I/O it is as near to that as can be. Whoever opens it disposes it.
 */
export class DiskReader implements AsyncDisposable {
  readonly #file: FileHandle

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /** Throws Node's errors. */
  static async open(path: string): Promise<DiskReader> {
    return new DiskReader(await openDirectly(path))
  }

  /** Throws Node's errors, and an Error when the file ends before. */
  async read(length: number, offset: number): Promise<Buffer> {
    const start = Math.floor(offset / ALIGNMENT) * ALIGNMENT
    const size = Math.ceil((offset + length - start) / ALIGNMENT) * ALIGNMENT
    const memory = Buffer.allocUnsafeSlow(size + ALIGNMENT)
    const aligned = memory.subarray((ALIGNMENT - (bufferAddress(memory) % ALIGNMENT)) % ALIGNMENT).subarray(0, size)
    forgetCached(this.#file.fd, start, size)
    let done = 0
    while (start + done < offset + length) {
      const {bytesRead} = await this.#file.read(aligned, done, size - done, start + done)
      if (bytesRead === 0) throw new Error('the file is shorter than what was written to it')
      done += bytesRead
    }
    return aligned.subarray(offset - start, offset - start + length)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

/** One read by a DiskReader. Throws what that throws. */
export async function readFromDisk(path: string, length: number, offset: number): Promise<Buffer> {
  await using disk = await DiskReader.open(path)
  return await disk.read(length, offset)
}

/**
 * The same of a file that is open, whatever its name is by now, after a read of it failed with `failure`: what is good beside something bad
 * can be read in this way. Throws `failure` when it cannot, or when that was not about the disk.
 */
export async function readBesideBad(fd: number, length: number, offset: number, failure: unknown): Promise<Buffer> {
  if (errnoOf(failure) !== 'EIO') throw failure
  try {
    return await readFromDisk(`/proc/self/fd/${fd}`, length, offset)
  } catch {
    // The first one says what was wrong.
    throw failure
  }
}

async function openDirectly(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_DIRECT)
  } catch (error) {
    if (errnoOf(error) !== 'EINVAL') throw error
    const file = await open(path, 'r')
    readNothingAhead(file.fd)
    return file
  }
}
