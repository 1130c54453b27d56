import {constants} from 'node:os'
import type {Slab} from '../lib/net/slab.js'

/** What can be asked of a block device. */
export const OP = {READ: 0, WRITE: 1, FLUSH: 2, DISCARD: 3, WRITE_ZEROES: 4, /** Inside the engine only. */ BLOCK_STATUS: 5, /** The same. */ DIRECT: 6} as const
export type Op = (typeof OP)[keyof typeof OP]

/** The most bytes one READ or WRITE may move. Larger requests are cut by whoever serves them, as their bytes arrive. */
export const MAX_IO_BYTES = 128 * 1024

/** `error` of a finished request: 0, or one of these errno values. Whatever else went wrong is EIO. */
export const ERRNO = {
  OK: 0,
  EIO: constants.errno.EIO,
  EINVAL: constants.errno.EINVAL,
  ENOSPC: constants.errno.ENOSPC,
  ESHUTDOWN: 108,
} as const

/**
 * One request to a block device, from submit() to onDone(). Servers subclass it with what they need to answer, and
 * reuse the objects: this is the only thing made per request on the data path, there is no promise and no closure.
 */
export abstract class Io {
  op: Op = OP.READ
  /** First byte. */
  offset = 0
  /** Bytes; 0 for FLUSH. READ and WRITE: 1 to MAX_IO_BYTES. DISCARD and WRITE_ZEROES: up to the size of the device. */
  length = 0
  /** The request is finished only when its effect survives a power cut. */
  fua = false
  /** WRITE_ZEROES: space must stay (or become) allocated. */
  noUnmap = false
  /** WRITE: all of it or nothing, whatever fails. It is done when it survives a power cut. */
  atomic = false
  /** WRITE: a later part of a request that was cut as its bytes arrived. Whoever counts requests has counted the first part. */
  continued = false

  // For the device's own use between submit() and onDone(); undefined content outside.
  /** Answers still awaited. */
  waiting = 0
  /** The first error, if any. */
  error = 0
  /** Answers that were good. */
  succeeded = 0
  /** Replicas that were asked for a READ in vain, or that failed another request; a bit each. */
  failed = 0
  /** What is under way is the flush that ends a request with `fua`. */
  flushing = false
  /** It is the flush whose end says what is on the disks. */
  countsFlush = false
  /** When it was submitted, on the reactor's clock. */
  startedAt = 0
  /** Which generation of changes it is one of; 0 for none. */
  generation = 0

  /**
   * The data of a READ: `length` bytes of the slab from `start`. They stay as they are until the end of this turn of
   * the reactor: push them to a stream, or copy them. Called once, just before onDone(0).
   */
  abstract onData(slab: Slab, start: number): void

  /** The request is finished; `error` is 0 or an errno. Called exactly once, possibly during submit(). */
  abstract onDone(error: number): void
}

/** A part of the device and what is known of it. */
export interface Extent {
  readonly offset: number
  readonly length: number
  /** False: it reads as zeros and takes no space. True: it may hold anything. */
  readonly allocated: boolean
}

/** A block device as its servers see it. Requests in flight are unordered, as on any disk. */
export interface BlockDevice {
  /** Size in bytes, a multiple of 512. May grow. */
  readonly sizeBytes: number

  /**
   * Starts a request. `slab` and `start` hold the data of a WRITE; the device has sent, written or retained them by
   * the end of this turn of the reactor. A range outside the device finishes with EINVAL, a full disk with ENOSPC.
   *
   * A WRITE is finished when it survives the death of any process; a FLUSH when everything finished before it was
   * submitted survives a power cut.
   */
  submit(io: Io, slab?: Slab, start?: number): void

  /**
   * What is allocated in a range that lies inside the device: extents in order, without gaps or overlaps, from `offset`
   * on, covering at least one byte and at most the range. Throws LonghornError.
   */
  blockStatus(offset: number, length: number): Promise<Extent[]>

  /** What tells the content of a range from any other, where there is such a thing; see FRAME.DIGEST. Throws LonghornError. */
  readonly digest?: ((offset: number, length: number) => Promise<Buffer>) | undefined
  /**
   * Replicas only: good data for whole blocks (the last one may be cut short by the end of the device) that could not be read here, of at most MAX_IO_BYTES, which belong to the device until
   * it is done. Nobody else changes that range meanwhile. Resolves to the bytes that were left as they are because a frozen
   * layer holds them; everything else has been rewritten, durably, and can be read. Throws LonghornError.
   */
  repair?(data: Buffer, offset: number): Promise<number>
}

/** True when [offset, offset + length) lies inside a device of `sizeBytes`. */
export function inRange(offset: number, length: number, sizeBytes: number): boolean {
  return offset >= 0 && length >= 0 && offset + length <= sizeBytes
}
