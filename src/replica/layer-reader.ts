import {read as readFromThreadPool} from 'node:fs'
import {readAt, readCachedAt} from '../lib/sys/positioned-io.js'
import type {LonghornError} from '../lib/errors.js'
import {ioFailure} from './io-failure.js'
import {readBesideBad} from './read-back.js'
import type {LayerFile} from './layer-file.js'
import type {LayerStack} from './layer-stack.js'
import {BLOCK_BYTES, NO_LAYER} from './sector-map.js'

/** Up to here a read of what is in memory is done in the event loop: copying it costs less than a thread's wake-up. Bytes. */
const CACHED_READ_MAX = 256 * 1024

/** A part of the volume that is all data or all zeros. */
export interface BlockStatus {
  readonly offset: number
  readonly length: number
  /** False where no layer holds anything: reads as zeros and takes no space. */
  readonly data: boolean
}

/**
 * Reads a volume through its layers. Adjacent blocks of one layer are one system call; blocks that no layer holds, and
 * what lies past the end of a layer from before an expansion, are zeros.
 *
 * Offsets and lengths are bytes, of any alignment. A range outside the volume or the buffer is a bug of the caller: RangeError.
 * A disk that fails is IO. A read that runs at the same time as a write to the same place may see either.
 */
export class LayerReader {
  #pending = 0
  #idle: (() => void)[] = []
  /** Reads in the thread pool by the epoch they began in; those of the present epoch are counted last. */
  readonly #epochs: Epoch[] = [{pending: 0, done: []}]

  constructor(readonly stack: LayerStack) {}

  /**
   * Reads into `target` from `start` on: done when this returns undefined, else when the promise resolves.
   * What is in memory is read at once, everything else in the thread pool, so that the loop never waits for the disk.
   */
  read(target: Buffer, start: number, length: number, offset: number): Promise<void> | undefined {
    if (length <= CACHED_READ_MAX && this.tryReadCached(target, start, length, offset)) return undefined
    return this.readAsync(target, start, length, offset)
  }

  /** Reads now, waiting for the disk if need be. */
  readSync(target: Buffer, start: number, length: number, offset: number): void {
    this.#check(target, start, length, offset)
    let done = 0
    while (done < length) {
      const bytes = this.runBytes(offset + done, length - done)
      const layer = this.layerAt(offset + done)
      if (layer === undefined) target.fill(0, start + done, start + done + bytes)
      else readLayer(layer, target, start + done, bytes, offset + done)
      done += bytes
    }
  }

  /** Reads now if all of it is in memory. False when it is not; part of `target` may then have been overwritten. */
  tryReadCached(target: Buffer, start: number, length: number, offset: number): boolean {
    this.#check(target, start, length, offset)
    let done = 0
    while (done < length) {
      const bytes = this.runBytes(offset + done, length - done)
      const layer = this.layerAt(offset + done)
      if (layer === undefined) target.fill(0, start + done, start + done + bytes)
      else if (!readLayerCached(layer, target, start + done, bytes, offset + done)) return false
      done += bytes
    }
    return true
  }

  /** Reads in the thread pool. `target` belongs to the read until the promise is settled. */
  readAsync(target: Buffer, start: number, length: number, offset: number): Promise<void> {
    this.#check(target, start, length, offset)
    this.#pending += 1
    const epoch = this.#epochs.at(-1)!
    epoch.pending += 1
    return new Promise((resolve, reject) => {
      new PendingRead(this, target, start, length, offset, failure => {
        this.#finished(epoch)
        if (failure === undefined) resolve()
        else reject(failure)
      }).start()
    })
  }

  /** Where [offset, offset+length) has data, in order and without gaps. Block granularity, neighbours of a kind merged. */
  *status(offset: number, length: number): Generator<BlockStatus> {
    const end = offset + length
    let from = offset
    let at = offset
    while (at < end) {
      const data = this.layerAt(at) !== undefined
      at += this.runBytes(at, end - at)
      if (at < end && (this.layerAt(at) !== undefined) === data) continue
      yield {offset: from, length: at - from, data}
      from = at
    }
  }

  /** Resolves when no read is running in the thread pool. */
  idle(): Promise<void> {
    if (this.#pending === 0) return Promise.resolve()
    return new Promise(resolve => {
      this.#idle.push(resolve)
    })
  }

  /** Resolves when the reads that are running in the thread pool now are done: none looks at a layer as it was before this call. */
  settled(): Promise<void> {
    if (this.#pending === 0) return Promise.resolve()
    const present = this.#epochs.at(-1)!
    this.#epochs.push({pending: 0, done: []})
    return new Promise(resolve => {
      present.done.push(resolve)
      this.#retireEpochs()
    })
  }

  /** The layer that holds the byte at `offset`, undefined for none. */
  layerAt(offset: number): LayerFile | undefined {
    const {map, files} = this.stack
    const number = map.lookup(Math.floor(offset / BLOCK_BYTES))
    return number === NO_LAYER ? undefined : files[number - 1]
  }

  /** How many bytes from `offset` on, at most `limit`, the layer there holds. */
  runBytes(offset: number, limit: number): number {
    const block = Math.floor(offset / BLOCK_BYTES)
    const blocks = Math.ceil((offset + limit) / BLOCK_BYTES) - block
    if (blocks === 1) return limit
    return Math.min(limit, (block + this.stack.map.runLength(block, blocks)) * BLOCK_BYTES - offset)
  }

  #check(target: Buffer, start: number, length: number, offset: number): void {
    if (offset >= 0 && length >= 0 && offset + length <= this.stack.sizeBytes && start >= 0 && start + length <= target.length) return
    throw new RangeError(`read of ${length} bytes at ${offset}: outside the volume of ${this.stack.sizeBytes} or the buffer`)
  }

  #finished(epoch: Epoch): void {
    this.#pending -= 1
    epoch.pending -= 1
    this.#retireEpochs()
    if (this.#pending > 0) return
    const waiting = this.#idle
    this.#idle = []
    for (const wake of waiting) wake()
  }

  /** Ends the epochs, oldest first, that have no reads left. */
  #retireEpochs(): void {
    while (this.#epochs.length > 1 && this.#epochs[0]!.pending === 0) {
      for (const wake of this.#epochs.shift()!.done) wake()
    }
  }
}

interface Epoch {
  pending: number
  readonly done: (() => void)[]
}

/** One read on its way through the thread pool, run by run. */
class PendingRead {
  #done = 0
  /** End of the run being read, counted like `#done`. */
  #runEnd = 0
  #layer: LayerFile | undefined

  constructor(
    readonly reader: LayerReader,
    readonly target: Buffer,
    readonly targetStart: number,
    readonly length: number,
    readonly offset: number,
    readonly finish: (failure: Error | undefined) => void,
  ) {}

  /** Goes as far as it can without waiting, then on from one thread-pool answer to the next. */
  start(): void {
    try {
      this.#advance()
    } catch (error) {
      this.finish(error instanceof Error ? error : new Error('a read failed', {cause: error}))
    }
  }

  #advance(): void {
    while (this.#done < this.length) {
      const at = this.offset + this.#done
      if (this.#done === this.#runEnd) {
        this.#runEnd += this.reader.runBytes(at, this.length - this.#done)
        this.#layer = this.reader.layerAt(at)
      }
      if (this.#layer === undefined) {
        this.#fill()
        continue
      }
      const position = this.targetStart + this.#done
      const bytes = this.#runEnd - this.#done
      // Of a fragmented range most runs may be in memory already; one trip to the thread pool each would be slow.
      if (bytes <= CACHED_READ_MAX && readLayerCached(this.#layer, this.target, position, bytes, at)) {
        this.#done = this.#runEnd
        continue
      }
      readFromThreadPool(this.#layer.fd, this.target, position, bytes, at, this.#arrived)
      return
    }
    this.finish(undefined)
  }

  readonly #arrived = (error: unknown, bytes: number): void => {
    if (error !== null && error !== undefined) {
      void this.#readBesideBad(this.#layer!, error)
      return
    }
    this.#done += bytes
    if (bytes === 0) this.#fill()
    this.start()
  }

  async #readBesideBad(layer: LayerFile, failure: unknown): Promise<void> {
    const bytes = this.#runEnd - this.#done
    const at = this.offset + this.#done
    try {
      this.target.set(await readBesideBad(layer.fd, bytes, at, failure), this.targetStart + this.#done)
    } catch (error) {
      this.finish(readFailure(layer, bytes, at, error))
      return
    }
    this.#done = this.#runEnd
    this.start()
  }

  #fill(): void {
    this.target.fill(0, this.targetStart + this.#done, this.targetStart + this.#runEnd)
    this.#done = this.#runEnd
  }
}

function readLayer(layer: LayerFile, target: Buffer, start: number, length: number, offset: number): void {
  try {
    let done = 0
    while (done < length) {
      const bytes = readAt(layer.fd, target, start + done, length - done, offset + done)
      if (bytes === 0) break
      done += bytes
    }
    target.fill(0, start + done, start + length)
  } catch (error) {
    throw readFailure(layer, length, offset, error)
  }
}

function readLayerCached(layer: LayerFile, target: Buffer, start: number, length: number, offset: number): boolean {
  try {
    let done = 0
    while (done < length) {
      const bytes = readCachedAt(layer.fd, target, start + done, length - done, offset + done)
      if (bytes < 0) return false
      if (bytes === 0) {
        target.fill(0, start + done, start + length)
        return true
      }
      done += bytes
    }
    return true
  } catch (error) {
    throw readFailure(layer, length, offset, error)
  }
}

function readFailure(layer: LayerFile | undefined, length: number, offset: number, error: unknown): LonghornError {
  return ioFailure(`reading ${length} bytes at ${offset} from ${layer?.path}`, error)
}
