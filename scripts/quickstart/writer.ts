import {LonghornError, messageOf} from '../../src/lib/errors.js'
import {FILE_BYTES, fileName, FileSource, PIECE_BYTES, type DemoFile} from './demo-files.js'
import type {VolumeUser} from './volume-user.js'

/** With fewer files there would be nothing before or after the replica's end. */
const LEAST_FILES = 4

export interface WriterOptions {
  /** Stop when this much time has passed, … */
  readonly seconds: number
  /** … or this much was written, whichever comes first. */
  readonly maxBytes: number
}

/** A moment in the writing. */
export interface Mark {
  readonly bytes: number
  readonly elapsedMs: number
}

/** Writes file after file and notes how long it had to wait for each piece. */
export class Writer {
  readonly files: DemoFile[] = []
  bytes = 0
  /** The longest wait for a piece, and that since takeLongest(). */
  longestMs = 0
  #longestSinceMs = 0
  readonly #user: VolumeUser
  readonly #options: WriterOptions
  readonly #startedAt = performance.now()

  constructor(user: VolumeUser, options: WriterOptions) {
    this.#user = user
    this.#options = options
  }

  /** How far it is, from 0 to 1. */
  get fraction(): number {
    return Math.min(1, Math.max(this.elapsedMs / (this.#options.seconds * 1000), this.bytes / this.#options.maxBytes))
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedAt
  }

  mark(): Mark {
    return {bytes: this.bytes, elapsedMs: this.elapsedMs}
  }

  /** The longest wait since the last time this was asked. */
  takeLongest(): number {
    const longest = this.#longestSinceMs
    this.#longestSinceMs = 0
    return longest
  }

  async run(signal: AbortSignal): Promise<void> {
    const source = new FileSource()
    while (this.files.length < LEAST_FILES || this.fraction < 1) {
      for (let at = 0; at < FILE_BYTES; at += PIECE_BYTES) {
        signal.throwIfAborted()
        const piece = source.nextPiece()
        const before = performance.now()
        await this.#append(source.index, at, piece)
        const waited = performance.now() - before
        this.longestMs = Math.max(this.longestMs, waited)
        this.#longestSinceMs = Math.max(this.#longestSinceMs, waited)
        this.bytes += piece.length
      }
      this.files.push(source.finishFile())
    }
  }

  async #append(index: number, at: number, piece: Buffer): Promise<void> {
    try {
      await this.#user.append(index, at, piece)
    } catch (error) {
      throw new LonghornError('IO', `writing ${fileName(index)} to the volume failed: ${messageOf(error)}`, {}, {cause: error})
    }
  }
}
