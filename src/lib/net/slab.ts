import {bufferAddress} from '../sys/buffer-address.js'

/**
 * Memory that the data path receives into and sends from: large enough that one system call moves many requests, small
 * enough to stay in the processor's cache. Reference-counted by hand, because its bytes are handed to the kernel by
 * address: a slab is written again only when nobody but its current user refers to it.
 */
export class Slab {
  readonly buffer: Buffer
  /** Address of the first byte. */
  readonly address: number
  /** The stream that fills it counts as one; every piece of output that waits in a send queue counts as one more. */
  references = 0

  constructor(
    readonly size: number,
    readonly pool: SlabPool,
  ) {
    this.buffer = Buffer.allocUnsafeSlow(size)
    this.address = bufferAddress(this.buffer)
  }

  retain(): void {
    this.references++
  }

  release(): void {
    if (--this.references === 0) this.pool.give(this)
  }
}

/** Slabs of one size, kept for reuse. What bounds the number in use is the admission of requests, not the pool. */
export class SlabPool {
  readonly #free: Slab[] = []
  #inUse = 0

  constructor(
    readonly slabBytes: number,
    /** How many unused slabs are kept; more are left to the garbage collector. */
    readonly keep: number,
  ) {}

  /** A slab with one reference, the caller's. Its bytes are whatever was there before. */
  take(): Slab {
    const slab = this.#free.pop() ?? new Slab(this.slabBytes, this)
    slab.references = 1
    this.#inUse++
    return slab
  }

  /** Called by Slab.release() only. */
  give(slab: Slab): void {
    this.#inUse--
    if (this.#free.length < this.keep) this.#free.push(slab)
  }

  get inUse(): number {
    return this.#inUse
  }
}

/** Bytes of one slab; also the most that one system call receives. */
export const SLAB_BYTES = 512 * 1024

/** The slabs of this process's data path. */
export const slabs = new SlabPool(SLAB_BYTES, 8)
