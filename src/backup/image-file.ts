import {constants} from 'node:fs'
import {open, type FileHandle} from 'node:fs/promises'
import {errnoOf} from '../lib/errors.js'
import {bufferAddress} from '../lib/sys/buffer-address.js'

/** What is written or left out as one. */
const GRAIN_BYTES = 4096
/** What every disk takes past the page cache; pages of memory are that large, or larger. */
const DIRECT_BYTES = 4096
const zeros = Buffer.alloc(GRAIN_BYTES)

/**
 * A file that blocks are restored to, parts of which stay holes. Written past the page cache (O_DIRECT), where the file system has that: copying there what nobody reads
 * soon took longer than everything else, and it would push out what other volumes read.
 */
export class ImageFile {
  #direct: FileHandle | undefined

  private constructor(
    readonly file: FileHandle,
    direct: FileHandle | undefined,
  ) {
    this.#direct = direct
  }

  /** Takes over `file`, which is open for writing at `path`. Throws what opening and writing files throws, here and below. */
  static async over(file: FileHandle, path: string): Promise<ImageFile> {
    try {
      return new ImageFile(file, await open(path, constants.O_WRONLY | constants.O_DIRECT))
    } catch (error) {
      // What a file system without it says.
      if (errnoOf(error) === 'EINVAL') return new ImageFile(file, undefined)
      await file.close()
      throw error
    }
  }

  /** Writes the parts of a block, in units of 4096 bytes, that are wanted; `block` must not change meanwhile. */
  async write(block: Buffer, offset: number, wanted: (from: number, to: number) => boolean = (from, to) => !isZero(block, from, to)): Promise<void> {
    let from = -1
    for (let at = 0; at <= block.length; at += GRAIN_BYTES) {
      const is = at < block.length && wanted(at, Math.min(at + GRAIN_BYTES, block.length))
      if (is && from === -1) from = at
      if (is || from === -1) continue
      await this.#writeAll(block.subarray(from, at), offset + from)
      from = -1
    }
    if (from !== -1) await this.#writeAll(block.subarray(from), offset + from)
  }

  /** Resolves when all of it survives a power cut. */
  sync(): Promise<void> {
    return this.file.sync()
  }

  /** Safe twice. */
  async close(): Promise<void> {
    const direct = this.#direct
    this.#direct = undefined
    try {
      await direct?.close()
    } finally {
      await this.file.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #writeAll(data: Buffer, offset: number): Promise<void> {
    let done = 0
    if (this.#direct !== undefined && [data.length, offset, bufferAddress(data)].every(value => value % DIRECT_BYTES === 0)) done = await this.#writeDirect(this.#direct, data, offset)
    while (done < data.length) done += (await this.file.write(data, done, data.length - done, offset + done)).bytesWritten
  }

  /** How much was written: what is missing goes the ordinary way. */
  async #writeDirect(direct: FileHandle, data: Buffer, offset: number): Promise<number> {
    try {
      return (await direct.write(data, 0, data.length, offset)).bytesWritten
    } catch (error) {
      // A disk with larger sectors, or a file system that finds out now.
      if (errnoOf(error) !== 'EINVAL') throw error
      return 0
    }
  }
}

function isZero(block: Buffer, from: number, to: number): boolean {
  return block.compare(zeros, 0, to - from, from, to) === 0
}
