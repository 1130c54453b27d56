import {Slab, SlabPool} from '../lib/net/slab.js'
import {Io, MAX_IO_BYTES, OP} from '../protocol/block-device.js'

/** Begins a write of what the slab has from its beginning. */
type StartWrite = (io: Io, slab: Slab) => void

/** A slab of zeros that nobody writes. It holds a reference of its own for good. */
let zeros: Slab | undefined

/**
 * WRITE_ZEROES as ordinary writes, one after the other, for volumes with a replica that has no such message (upstream's).
 * `done` gets 0 or the errno of the first piece that failed.
 */
export function writeZeroesByHand(write: StartWrite, io: Io, done: (error: number) => void): void {
  zeros ??= makeZeros()
  new ZeroWriter(write, io.offset, io.offset + io.length, zeros, done).next()
}

class ZeroWriter extends Io {
  readonly #write: StartWrite
  readonly #end: number
  readonly #zeros: Slab
  readonly #done: (error: number) => void

  constructor(write: StartWrite, offset: number, end: number, source: Slab, done: (error: number) => void) {
    super()
    this.op = OP.WRITE
    this.offset = offset
    this.#write = write
    this.#end = end
    this.#zeros = source
    this.#done = done
  }

  next(): void {
    this.length = Math.min(MAX_IO_BYTES - (this.offset % 4096), this.#end - this.offset)
    this.#write(this, this.#zeros)
  }

  override onData(): void {
    throw new Error('a write has no data to give')
  }

  override onDone(error: number): void {
    this.offset += this.length
    if (error !== 0 || this.offset === this.#end) this.#done(error)
    else this.next()
  }
}

function makeZeros(): Slab {
  const slab = new Slab(MAX_IO_BYTES, new SlabPool(MAX_IO_BYTES, 0))
  slab.buffer.fill(0)
  slab.references = 1
  return slab
}
