import {constants} from 'node:fs'
import {open} from 'node:fs/promises'
import type {Range} from '../../backup/block-source.js'
import {ImageFile} from '../../backup/image-file.js'
import type {RestoreTarget} from '../../backup/restore-blocks.js'
import {punchHole} from '../../lib/sys/fallocate.js'
import {ioFailure} from '../io-failure.js'
import {openVolumeView, type VolumeView} from '../open-replica.js'

/** Cleared in pieces of this size where it has to be looked at what is there. */
const PIECE_BYTES = 2 * 1024 ** 2
const zeroes = Buffer.alloc(PIECE_BYTES)

/** The file that a backup is restored to, before it becomes a layer. */
export interface RestoreImage extends RestoreTarget {
  /** Resolves when all of it survives a power cut. */
  sync(): Promise<void>
  close(): Promise<void>
}

/**
 * A whole image: what is zero is a hole. What an earlier attempt has left in the file is used, as far as its content is right.
 */
export class FullImage implements RestoreImage {
  private constructor(
    readonly path: string,
    readonly image: ImageFile,
    /** Something may be in it. */
    readonly used: boolean,
  ) {}

  static async open(path: string, sizeBytes: number): Promise<FullImage> {
    return disk(`opening ${path}`, async () => {
      const image = await ImageFile.over(await open(path, constants.O_RDWR | constants.O_CREAT, 0o644), path)
      try {
        const {blocks} = await image.file.stat()
        await image.file.truncate(sizeBytes)
        return new FullImage(path, image, blocks > 0)
      } catch (error) {
        await image.close()
        throw error
      }
    })
  }

  async found(offset: number, length: number): Promise<Buffer | undefined> {
    if (!this.used) return undefined
    const block = Buffer.alloc(length)
    await disk(`reading ${this.path}`, () => this.image.file.read(block, 0, length, offset))
    return block
  }

  write(block: Buffer, offset: number): Promise<void> {
    return disk(`writing ${block.length} bytes at ${offset} to ${this.path}`, async () => {
      if (this.used) await punchHole(this.image.file.fd, offset, block.length)
      await this.image.write(block, offset)
    })
  }

  async clear({offset, length}: Range): Promise<void> {
    if (this.used) await disk(`clearing ${length} bytes at ${offset} of ${this.path}`, () => punchHole(this.image.file.fd, offset, length))
  }

  sync(): Promise<void> {
    return disk(`syncing ${this.path}`, () => this.image.sync())
  }

  close(): Promise<void> {
    return this.image.close()
  }
}

/** What differs from a layer: blocks of 4096 bytes with another content, also such that become zeros, which hide what is below. */
export class DeltaImage implements RestoreImage {
  private constructor(
    readonly path: string,
    readonly image: ImageFile,
    readonly below: VolumeView,
  ) {}

  /** `parent`: the layer (a file name) that the image is to stand on. It must not be purged meanwhile. */
  static async open(path: string, sizeBytes: number, directory: string, parent: string): Promise<DeltaImage> {
    const below = await openVolumeView(directory, parent)
    try {
      return await disk(`opening ${path}`, async () => {
        // What an earlier attempt left may be of something else, and tells nothing.
        const image = await ImageFile.over(await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o644), path)
        try {
          await image.file.truncate(sizeBytes)
        } catch (error) {
          await image.close()
          throw error
        }
        return new DeltaImage(path, image, below)
      })
    } catch (error) {
      await below.close()
      throw error
    }
  }

  async found(): Promise<undefined> {
    return undefined
  }

  async write(block: Buffer, offset: number): Promise<void> {
    const before = Buffer.alloc(block.length)
    // A layer from before an expansion is smaller: past its end there are zeros.
    const length = Math.max(0, Math.min(block.length, this.below.sizeBytes - offset))
    if (length > 0) await this.below.reader.read(before, 0, length, offset)
    await disk(`writing ${block.length} bytes at ${offset} to ${this.path}`, () =>
      this.image.write(block, offset, (from, to) => block.compare(before, from, to, from, to) !== 0),
    )
  }

  async clear({offset, length}: Range): Promise<void> {
    const end = Math.min(offset + length, this.below.sizeBytes)
    for (let at = offset; at < end; at += PIECE_BYTES) await this.write(zeroes.subarray(0, Math.min(PIECE_BYTES, end - at)), at)
  }

  sync(): Promise<void> {
    return disk(`syncing ${this.path}`, () => this.image.sync())
  }

  async close(): Promise<void> {
    try {
      await this.below.close()
    } finally {
      await this.image.close()
    }
  }
}

async function disk<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw ioFailure(doing, error)
  }
}
