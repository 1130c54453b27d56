import {reactor} from '../../../../../lib/net/reactor.js'
import {slabs, type Slab} from '../../../../../lib/net/slab.js'
import {MAX_IO_BYTES, OP, type BlockDevice, type Op} from '../../../../../protocol/block-device.js'
import {CheckCondition, conditionOf} from '../check-condition.js'
import {BLOCK_BYTES} from '../geometry.js'
import {pieceLength} from '../../../cutting.js'
import {GatedIo, type Claim, type DeviceGate} from './device-gate.js'

/** Requests of one command that the device has at a time. */
const WINDOW = 8

/** The most that one WRITE_ZEROES is asked for: it keeps the device busy no longer than a moment. */
const ZERO_BYTES = 64 * 1024 * 1024

export interface WriteOptions {
  readonly fua?: boolean
  /** All or nothing of what is at most MAX_IO_BYTES. */
  readonly atomic?: boolean
  /** The caller holds a claim on the range. */
  readonly claimed?: boolean
}

export interface ZeroOptions extends WriteOptions {
  /** Space may be given back. */
  readonly unmap: boolean
}

/** The length of the first piece. */
type Cut = (offset: number, left: number) => number

/** Sees data that was read, in any order; the bytes are valid during the call. */
export type OnRead = (slab: Slab, start: number, length: number, offset: number) => void

/**
 * The device with a promise for each operation, of any length: for the commands that are not in anybody's hot path. What
 * fails throws CheckCondition with the lowest address that failed.
 */
export class BlockIo {
  constructor(
    readonly device: BlockDevice,
    readonly gate: DeviceGate,
    /** True when there is no point in going on: asked between requests. */
    readonly cancelled: () => boolean = () => false,
  ) {}

  /** The same for one command, which may be taken back. */
  until(cancelled: () => boolean): BlockIo {
    return new BlockIo(this.device, this.gate, cancelled)
  }

  /** Exclusive use of a range while `work` runs. */
  async exclusively<T>(offset: number, length: number, work: () => Promise<T>): Promise<T> {
    const claim: Claim = await this.gate.claim(offset, length)
    try {
      return await work()
    } finally {
      this.gate.release(claim)
    }
  }

  /** The device without anybody else while `work` runs: what comes meanwhile is refused. */
  async alone<T>(work: () => Promise<T>): Promise<T> {
    const claim: Claim = await this.gate.claimAll()
    try {
      return await work()
    } finally {
      this.gate.release(claim)
    }
  }

  async readEach(offset: number, length: number, onRead: OnRead, {claimed}: WriteOptions = {}): Promise<void> {
    await this.#inPieces(offset, length, pieceLength, (at, count) => this.#submit(OP.READ, at, count, {claimed, onRead}))
  }

  async read(offset: number, length: number, options: WriteOptions = {}): Promise<Buffer> {
    const data = Buffer.allocUnsafe(length)
    await this.readEach(offset, length, (slab, start, count, at) => slab.buffer.copy(data, at - offset, start, start + count), options)
    return data
  }

  /** One request of at most MAX_IO_BYTES; the slab is the caller's, and may be given up when this has been called. */
  async writeSlab(offset: number, slab: Slab, start: number, length: number, {fua, claimed, atomic}: WriteOptions = {}): Promise<void> {
    await this.#submit(OP.WRITE, offset, length, {claimed, fua, atomic, slab, start})
  }

  /** What is at most MAX_IO_BYTES is one request. */
  async write(offset: number, data: Buffer, options: WriteOptions = {}): Promise<void> {
    await this.#inPieces(offset, data.length, pieceLength, (at, count) => {
      const slab = slabs.take()
      data.copy(slab.buffer, 0, at - offset, at - offset + count)
      const written = this.writeSlab(at, slab, 0, count, options)
      reactor.releaseAfterFlush(slab)
      return written
    })
  }

  /** Writes `block`, whose length divides MAX_IO_BYTES, again and again. */
  async fill(offset: number, length: number, block: Buffer): Promise<void> {
    const slab = slabs.take()
    slab.buffer.fill(block, 0, MAX_IO_BYTES)
    try {
      await this.#inPieces(offset, length, pieceLength, (at, count) => this.#submit(OP.WRITE, at, count, {slab, start: 0}))
    } finally {
      reactor.releaseAfterFlush(slab)
    }
  }

  async zero(offset: number, length: number, {unmap, claimed, fua}: ZeroOptions): Promise<void> {
    await this.#inPieces(offset, length, zeroLength, (at, count) => this.#submit(OP.WRITE_ZEROES, at, count, {claimed, fua, noUnmap: !unmap}))
  }

  async flush({claimed}: WriteOptions = {}): Promise<void> {
    await this.#submit(OP.FLUSH, 0, 0, {claimed})
  }

  /** Cuts a range, and lets several pieces be under way. Waits for those also when one has failed. */
  async #inPieces(offset: number, length: number, cut: Cut, run: (offset: number, length: number) => Promise<void>): Promise<void> {
    const end = offset + length
    let next = offset
    let failure: CheckCondition | undefined
    const worker = async (): Promise<void> => {
      while (next < end && failure === undefined && !this.cancelled()) {
        const at = next
        const count = cut(at, end - at)
        next += count
        try {
          await run(at, count)
        } catch (error) {
          if (!(error instanceof CheckCondition)) throw error
          failure = lowest(failure, error)
        }
      }
    }
    const workers = Math.min(WINDOW, Math.ceil(length / BLOCK_BYTES))
    await Promise.all(Array.from({length: workers}, worker))
    if (failure !== undefined) throw failure
  }

  #submit(op: Op, offset: number, length: number, options: RequestOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = new Request(this.gate, options, resolve, reject)
      request.op = op
      request.offset = offset
      request.length = length
      request.fua = options.fua === true
      request.noUnmap = options.noUnmap === true
      request.atomic = options.atomic === true
      if (options.claimed === true) this.device.submit(request, options.slab, options.start)
      else this.gate.submit(request, options.slab, options.start)
    })
  }
}

interface RequestOptions {
  readonly claimed?: boolean | undefined
  readonly fua?: boolean | undefined
  readonly atomic?: boolean | undefined
  readonly noUnmap?: boolean
  readonly slab?: Slab
  readonly start?: number
  readonly onRead?: OnRead
}

class Request extends GatedIo {
  constructor(
    readonly gate: DeviceGate,
    readonly options: RequestOptions,
    readonly resolve: () => void,
    readonly reject: (reason: Error) => void,
  ) {
    super()
  }

  override onData(slab: Slab, start: number): void {
    this.options.onRead?.(slab, start, this.length, this.offset)
  }

  override onDone(error: number): void {
    if (this.options.claimed !== true) this.gate.done(this)
    if (error === 0) this.resolve()
    else this.reject(new CheckCondition(conditionOf(error, this.op !== OP.READ), this.#where()))
  }

  #where(): {information?: number} {
    return this.op === OP.FLUSH ? {} : {information: Math.floor(this.offset / BLOCK_BYTES)}
  }
}

function zeroLength(offset: number, left: number): number {
  return left <= ZERO_BYTES ? left : ZERO_BYTES - (offset % ZERO_BYTES)
}

/** The one of two failures that happened lower on the disk. */
function lowest(a: CheckCondition | undefined, b: CheckCondition): CheckCondition {
  return a === undefined || (b.detail.information ?? 0) < (a.detail.information ?? 0) ? b : a
}
