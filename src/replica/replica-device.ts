import {isKind, LonghornError} from '../lib/errors.js'
import type {Slab} from '../lib/net/slab.js'
import {ERRNO, inRange, OP, type BlockDevice, type Extent, type Io} from '../protocol/block-device.js'
import {MAX_EXTENTS} from '../protocol/frame.js'
import {DeviceReader} from './device-reader.js'
import type {ReplicaVolume} from './replica-volume.js'

const OPERATION = {
  [OP.READ]: 'read',
  [OP.WRITE]: 'write',
  [OP.FLUSH]: 'flush',
  [OP.DISCARD]: 'discard',
  [OP.WRITE_ZEROES]: 'write-zeroes',
  [OP.BLOCK_STATUS]: 'block status',
  [OP.DIRECT]: 'other',
} as const

/** An open replica as a block device. What is in memory is answered during submit(), so a small request costs its system call. */
export class ReplicaDevice implements BlockDevice {
  readonly #volume: ReplicaVolume
  readonly #reader: DeviceReader
  /** Called with the reason of every request that failed for another reason than its range, and what was asked for. */
  readonly #onError: (error: unknown, operation: string) => void
  /** Called with every request that gives up space. */
  readonly #onUnmap: () => void

  constructor(volume: ReplicaVolume, onError: (error: unknown, operation: string) => void, onUnmap: () => void = () => undefined) {
    this.#volume = volume
    this.#onError = onError
    this.#reader = new DeviceReader(
      (target, start, length, offset) => volume.read(target, start, length, offset),
      (io, error) => this.#fail(io, error),
    )
    this.#onUnmap = onUnmap
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
          this.#reader.read(io)
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
      this.#onError(error, 'repair')
      throw error
    }
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
        this.#onUnmap()
        return this.#volume.discard(io.offset, io.length, io.fua)
      case OP.WRITE_ZEROES:
        // Initiators over iSCSI unmap in this way.
        if (!io.noUnmap) this.#onUnmap()
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
    this.#onError(error, OPERATION[io.op])
    io.onDone(isKind(error, 'NO_SPACE') ? ERRNO.ENOSPC : isKind(error, 'CONFLICT') ? ERRNO.ESHUTDOWN : ERRNO.EIO)
  }

  /** Gives the memory back; nothing may be submitted any more. */
  close(): void {
    this.#reader.close()
  }
}
