import {isKind, LonghornError} from '../lib/errors.js'
import {reactor} from '../lib/net/reactor.js'
import {slabs, type Slab} from '../lib/net/slab.js'
import {ERRNO, inRange, OP, type BlockDevice, type Extent, type Io} from '../protocol/block-device.js'
import {MAX_EXTENTS} from '../protocol/frame.js'
import type {ReplicaVolume} from './replica-volume.js'

/** An open replica as a block device. What is in memory is answered during submit(), so a small request costs its system call. */
export class ReplicaDevice implements BlockDevice {
  readonly #volume: ReplicaVolume
  /** Where reads put their data; written again when everything pushed from it has been sent. */
  #slab: Slab | undefined
  #used = 0
  #turn = -1
  /** Called with the reason of every request that failed for another reason than its range. */
  readonly #onError: (error: unknown) => void

  constructor(volume: ReplicaVolume, onError: (error: unknown) => void) {
    this.#volume = volume
    this.#onError = onError
  }

  get sizeBytes(): number {
    return this.#volume.sizeBytes
  }

  submit(io: Io, slab?: Slab, start = 0): void {
    if (!inRange(io.offset, io.length, this.#volume.sizeBytes)) {
      io.onDone(ERRNO.EINVAL)
      return
    }
    try {
      switch (io.op) {
        case OP.READ:
          this.#read(io)
          return
        case OP.WRITE:
          this.#write(io, slab!, start)
          return
        default:
          this.#finishLater(io, this.#startOther(io))
      }
    } catch (error) {
      this.#fail(io, error)
    }
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    const extents: Extent[] = []
    for (const {offset: from, length: bytes, data} of this.#volume.status(offset, length)) {
      extents.push({offset: from, length: bytes, allocated: data})
      if (extents.length === MAX_EXTENTS) break
    }
    return extents
  }

  async repair(data: Buffer, offset: number): Promise<number> {
    try {
      return await this.#volume.repair(data, offset)
    } catch (error) {
      this.#onError(error)
      throw error
    }
  }

  #read(io: Io): void {
    const slab = this.#readSlab(io.length)
    const start = this.#used
    this.#used += io.length
    const later = this.#volume.read(slab.buffer, start, io.length, io.offset)
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
        this.#fail(io, error)
      },
    )
  }

  #write(io: Io, slab: Slab, start: number): void {
    const later = io.atomic
      ? this.#volume.writeAtomic(slab.buffer.subarray(start, start + io.length), io.offset)
      : this.#volume.write(slab.buffer, start, io.length, io.offset, io.fua, io.continued)
    if (later === undefined) {
      io.onDone(ERRNO.OK)
      return
    }
    slab.retain()
    later.then(
      () => {
        slab.release()
        io.onDone(ERRNO.OK)
      },
      (error: unknown) => {
        slab.release()
        this.#fail(io, error)
      },
    )
  }

  #startOther(io: Io): Promise<unknown> {
    switch (io.op) {
      case OP.FLUSH:
        return this.#volume.flush()
      case OP.DISCARD:
        return this.#volume.discard(io.offset, io.length, io.fua)
      case OP.WRITE_ZEROES:
        return this.#volume.writeZeroes(io.offset, io.length, !io.noUnmap, io.fua)
      default:
        throw new LonghornError('UNSUPPORTED', `operation ${io.op} is not one of a replica`)
    }
  }

  #finishLater(io: Io, later: Promise<unknown>): void {
    later.then(
      () => io.onDone(ERRNO.OK),
      (error: unknown) => this.#fail(io, error),
    )
  }

  #fail(io: Io, error: unknown): void {
    if (error instanceof RangeError) throw error
    this.#onError(error)
    io.onDone(isKind(error, 'NO_SPACE') ? ERRNO.ENOSPC : isKind(error, 'CONFLICT') ? ERRNO.ESHUTDOWN : ERRNO.EIO)
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

  /** Gives the memory back; nothing may be submitted any more. */
  close(): void {
    if (this.#slab !== undefined) reactor.releaseAfterFlush(this.#slab)
    this.#slab = undefined
  }
}
