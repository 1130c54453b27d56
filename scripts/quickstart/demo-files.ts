import {createCipheriv, createHash, randomBytes, type Hash} from 'node:crypto'

export const MB = 1_000_000
/** What is written and made durable at a time. */
export const PIECE_BYTES = 256 * 1024
export const FILE_BYTES = 32 * PIECE_BYTES

/** A file that has been written, and what it has to read back as. */
export interface DemoFile {
  readonly index: number
  /** `data-007.bin` */
  readonly name: string
  readonly sizeBytes: number
  /** Where it begins when the volume is used without a file system. */
  readonly offset: number
  readonly sha256: string
}

/** Writes one file after the other; what they hold is random, so that nothing old can pass for it. */
export class FileSource {
  // Far faster than the system's random numbers, and the same to whoever does not have the key.
  readonly #random = createCipheriv('aes-128-ctr', randomBytes(16), randomBytes(16))
  readonly #zeros = Buffer.alloc(PIECE_BYTES)
  #index = 0
  #hash: Hash = createHash('sha256')

  get index(): number {
    return this.#index
  }

  nextPiece(): Buffer {
    const piece = this.#random.update(this.#zeros)
    this.#hash.update(piece)
    return piece
  }

  /** All pieces of this file have been taken. */
  finishFile(): DemoFile {
    const index = this.#index++
    const file = {index, name: fileName(index), sizeBytes: FILE_BYTES, offset: fileOffset(index), sha256: this.#hash.digest('hex')}
    this.#hash = createHash('sha256')
    return file
  }
}

export function fileName(index: number): string {
  return `data-${String(index + 1).padStart(3, '0')}.bin`
}

export function fileOffset(index: number): number {
  return index * FILE_BYTES
}

/** As `sha256sum` prints and reads it. */
export function checksumList(files: readonly DemoFile[]): string {
  return files.map(({sha256, name}) => `${sha256}  ${name}\n`).join('')
}
