import {reactor} from '../lib/net/reactor.js'
import {slabs, type Slab} from '../lib/net/slab.js'
import {ERRNO, type Io} from '../protocol/block-device.js'

/** Reads `length` bytes at `offset` into `target` from `start`: done when this returns undefined, else when the promise resolves. */
export type ReadInto = (target: Buffer, start: number, length: number, offset: number) => Promise<void> | undefined

/** Answers READ requests from something that can be read into a buffer; what is in memory within the call. */
export class DeviceReader {
  /** Where reads put their data; written again when everything pushed from it has been sent. */
  #slab: Slab | undefined
  #used = 0
  #turn = -1

  /** `fail` finishes a request that could not be read. */
  constructor(
    readonly readInto: ReadInto,
    readonly fail: (io: Io, error: unknown) => void,
  ) {}

  /** The request's range lies inside the device. Throws what `readInto` throws at once. */
  read(io: Io): void {
    const slab = this.#readSlab(io.length)
    const start = this.#used
    this.#used += io.length
    const later = this.readInto(slab.buffer, start, io.length, io.offset)
    if (later === undefined) {
      io.onData(slab, start)
      io.onDone(ERRNO.OK)
      return
    }
    slab.retain()
    later.then(
      () => {
        io.onData(slab, start)
        io.onDone(ERRNO.OK)
        reactor.releaseAfterFlush(slab)
      },
      (error: unknown) => {
        slab.release()
        this.fail(io, error)
      },
    )
  }

  /** A slab with room for `length` bytes at `#used`. */
  #readSlab(length: number): Slab {
    let slab = this.#slab
    if (slab !== undefined && slab.references === 1 && this.#turn !== reactor.turn) this.#used = 0
    this.#turn = reactor.turn
    if (slab === undefined || this.#used + length > slab.size) {
      if (slab !== undefined) reactor.releaseAfterFlush(slab)
      slab = slabs.take()
      this.#slab = slab
      this.#used = 0
    }
    return slab
  }

  /** Gives the memory back; nothing may be read any more. */
  close(): void {
    if (this.#slab !== undefined) reactor.releaseAfterFlush(this.#slab)
    this.#slab = undefined
  }
}
