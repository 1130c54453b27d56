import {closeSync, openSync, readSync} from 'node:fs'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../lib/errors.js'
import {writeAt} from '../lib/sys/positioned-io.js'
import {ioFailure} from './io-failure.js'
import {REVISION_COUNTER} from './layer-names.js'

const COUNTER_BYTES = 4096

/**
 * `revision.counter`: how many writes and discards a replica has seen, by which upstream's engine picks the most recent
 * replica after a crash. 4096 bytes: the number in decimal ASCII, then NULs.
 *
 * Off for new replicas, kept up where the file exists. Every request is counted in the file at once, not at the next
 * flush: a count that lags behind after a kill would make upstream prefer a replica that was dropped earlier. The write
 * goes to the page cache (about 1 µs), and a flush of the replica makes it durable together with the data.
 */
export class RevisionCounter {
  readonly #block = Buffer.alloc(COUNTER_BYTES)
  #value: number

  private constructor(
    readonly path: string,
    readonly fd: number,
    value: number,
  ) {
    this.#value = value
    this.#block.write(`${value}`, 'latin1')
  }

  /** Opens the counter of a replica directory; undefined when it has none. CORRUPT when it holds no number. */
  static open(directory: string): RevisionCounter | undefined {
    const path = join(directory, REVISION_COUNTER)
    let fd: number
    try {
      fd = openSync(path, 'r+')
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined
      throw error
    }
    try {
      const block = Buffer.alloc(COUNTER_BYTES)
      const text = block.toString('latin1', 0, readSync(fd, block, 0, COUNTER_BYTES, 0)).replace(/\0+$/, '')
      const value = Number(text)
      if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
        throw new LonghornError('CORRUPT', `${path} does not hold a number. Remove it on all replicas of the volume to do without the counter.`)
      }
      return new RevisionCounter(path, fd, value)
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  get value(): number {
    return this.#value
  }

  /** Counts one request. */
  add(): void {
    this.#value += 1
    // The number never gets shorter, so its digits are all that changes.
    this.#store(this.#block.write(`${this.#value}`, 'latin1'))
  }

  /** Continues from another number. */
  set(value: number): void {
    this.#value = value
    this.#block.fill(0)
    this.#block.write(`${value}`, 'latin1')
    this.#store(COUNTER_BYTES)
  }

  close(): void {
    closeSync(this.fd)
  }

  #store(bytes: number): void {
    try {
      writeAt(this.fd, this.#block, 0, bytes, 0)
    } catch (error) {
      throw ioFailure(`counting a write in ${this.path}`, error)
    }
  }
}

/** The content of the counter file of a new replica. */
export function newRevisionCounter(): Buffer {
  const block = Buffer.alloc(COUNTER_BYTES)
  block.write('0', 'latin1')
  return block
}
