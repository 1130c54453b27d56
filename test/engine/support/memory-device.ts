import {reactor} from '../../../src/lib/net/reactor.js'
import {SLAB_BYTES, SlabPool, type Slab} from '../../../src/lib/net/slab.js'
import {ERRNO, inRange, MAX_IO_BYTES, OP, type BlockDevice, type Extent, type Io} from '../../../src/protocol/block-device.js'

const BLOCK_BYTES = 4096

/** What a request was, kept after it is finished. */
export interface IoRecord {
  readonly op: number
  readonly offset: number
  readonly length: number
  readonly fua: boolean
  readonly noUnmap: boolean
}

interface Held {
  readonly io: Io
  readonly slab: Slab | undefined
  readonly start: number
}

/**
 * A block device in memory that keeps the contract of BlockDevice to the letter, and can be told to be slow, full, broken or
 * to finish requests in another order. Data of reads is copied, so that what has been read stays as it was.
 */
export class MemoryDevice implements BlockDevice {
  readonly bytes: Buffer
  sizeBytes: number
  /** `now`: finished during submit(). `later`: in the next pass of Node's loop. `held`: when release() says so. */
  mode: 'now' | 'later' | 'held' = 'now'
  /** An errno for this request, or 0 to let it pass. */
  fault: (io: Io) => number = () => ERRNO.OK
  /** Blocks that cannot be read until they are written as a whole. */
  readonly badBlocks = new Set<number>()
  /** Of these a repair says that a frozen layer holds them. */
  readonly frozenBlocks = new Set<number>()
  /** Why repairs fail; undefined: they do not. */
  repairFault: Error | undefined
  repairs = 0
  /** Space has run out: what would allocate a block fails with ENOSPC. */
  full = false
  /** Every request submitted since this was set to an empty array; undefined: none are kept. */
  records: IoRecord[] | undefined
  flushes = 0
  /** Requests between submit() and onDone(), now and at most. */
  inFlight = 0
  mostInFlight = 0
  mostBytesInFlight = 0
  /** Blocks with finished writes that no flush has covered yet. */
  readonly dirty = new Set<number>()
  /** False saves the time of keeping `dirty`, for measurements. */
  keepsDirty = true
  #bytesInFlight = 0
  #held: Held[] = []
  readonly #allocated: Uint8Array
  /** Of its own, and deep: a turn may read many of them full. */
  readonly #pool = new SlabPool(SLAB_BYTES, 64)
  #staging = this.#pool.take()
  #staged = 0
  /** Full ones of this turn: somebody may be about to send from them. */
  readonly #spent: Slab[] = []
  #stagedIn = 0

  /** `capacityBytes`: how far sizeBytes may be raised later. */
  constructor(sizeBytes: number, capacityBytes = sizeBytes) {
    this.sizeBytes = sizeBytes
    this.bytes = Buffer.alloc(capacityBytes)
    this.#allocated = new Uint8Array(Math.ceil(capacityBytes / BLOCK_BYTES))
  }

  submit(io: Io, slab?: Slab, start = 0): void {
    this.records?.push({op: io.op, offset: io.offset, length: io.length, fua: io.fua, noUnmap: io.noUnmap})
    this.#enter(io)
    if (this.mode === 'now') {
      this.#run(io, slab, start)
      return
    }
    slab?.retain()
    const held = {io, slab, start}
    if (this.mode === 'held') this.#held.push(held)
    else setImmediate(() => this.#runHeld(held))
  }

  blockStatus(offset: number, length: number): Promise<Extent[]> {
    const extents: Extent[] = []
    const end = offset + length
    let at = offset
    while (at < end) {
      const allocated = this.#allocated[Math.floor(at / BLOCK_BYTES)] === 1
      let block = Math.floor(at / BLOCK_BYTES) + 1
      while (block * BLOCK_BYTES < end && (this.#allocated[block] === 1) === allocated) block++
      const extentEnd = Math.min(end, block * BLOCK_BYTES)
      extents.push({offset: at, length: extentEnd - at, allocated})
      at = extentEnd
    }
    return Promise.resolve(extents)
  }

  async repair(data: Buffer, offset: number): Promise<number> {
    this.repairs++
    if (this.mode !== 'now') await new Promise(resolve => setImmediate(resolve))
    if (this.repairFault !== undefined) throw this.repairFault
    let left = 0
    for (let done = 0; done < data.length; done += BLOCK_BYTES) {
      const block = Math.floor((offset + done) / BLOCK_BYTES)
      const bytes = data.subarray(done, done + BLOCK_BYTES)
      if (this.frozenBlocks.has(block)) {
        left += bytes.length
        continue
      }
      bytes.copy(this.bytes, offset + done)
      this.badBlocks.delete(block)
    }
    return left
  }

  /** Number of requests that wait for release(). */
  get held(): number {
    return this.#held.length
  }

  /** Finishes held requests, all or the first `count` of them in the order that `order` gives; then new ones go as `mode` says. */
  release(order: (held: readonly Held[]) => readonly Held[] = all => all, count = Infinity): void {
    const chosen = order(this.#held).slice(0, count)
    this.#held = this.#held.filter(held => !chosen.includes(held))
    for (const held of chosen) this.#runHeld(held)
  }

  #runHeld({io, slab, start}: Held): void {
    this.#run(io, slab, start)
    slab?.release()
  }

  #run(io: Io, slab: Slab | undefined, start: number): void {
    const error = this.fault(io) || this.#problem(io)
    if (error === ERRNO.OK) this.#carryOut(io, slab, start)
    this.inFlight--
    this.#bytesInFlight -= bytesOf(io)
    io.onDone(error)
  }

  #isBad(io: Io): boolean {
    if (io.op !== OP.READ || this.badBlocks.size === 0) return false
    for (let block = Math.floor(io.offset / BLOCK_BYTES); block * BLOCK_BYTES < io.offset + io.length; block++) if (this.badBlocks.has(block)) return true
    return false
  }

  #problem(io: Io): number {
    if (this.#isBad(io)) return ERRNO.EIO
    if (!inRange(io.offset, io.length, this.sizeBytes)) return ERRNO.EINVAL
    if (io.op <= OP.WRITE && (io.length < 1 || io.length > MAX_IO_BYTES)) throw new Error(`the contract is broken: ${io.length} bytes in one request`)
    if (this.full && (io.op === OP.WRITE || (io.op === OP.WRITE_ZEROES && io.noUnmap)) && !this.#isAllocated(io)) return ERRNO.ENOSPC
    return ERRNO.OK
  }

  #carryOut(io: Io, slab: Slab | undefined, start: number): void {
    const end = io.offset + io.length
    switch (io.op) {
      case OP.READ:
        this.#stage(io)
        return
      case OP.WRITE:
        slab!.buffer.copy(this.bytes, io.offset, start, start + io.length)
        this.#healed(io.offset, io.length)
        this.#wrote(io, 1)
        return
      case OP.FLUSH:
        this.flushes++
        this.dirty.clear()
        return
      case OP.DISCARD:
      case OP.WRITE_ZEROES:
        this.bytes.fill(0, io.offset, end)
        this.#healed(io.offset, io.length)
        this.#wrote(io, io.op === OP.WRITE_ZEROES && io.noUnmap ? 1 : 0)
        return
      default:
        throw new Error(`nobody submits operation ${io.op}`)
    }
  }

  /** Hands out the data from a slab, as a connection to a replica would. Its bytes may be written again only in a later turn. */
  #stage(io: Io): void {
    if (reactor.now !== this.#stagedIn) {
      this.#stagedIn = reactor.now
      for (const slab of this.#spent.splice(0)) slab.release()
      if (this.#staging.references === 1) this.#staged = 0
    }
    if (this.#staged + io.length > this.#staging.size) {
      this.#spent.push(this.#staging)
      this.#staging = this.#pool.take()
      this.#staged = 0
    }
    const at = this.#staged
    this.bytes.copy(this.#staging.buffer, at, io.offset, io.offset + io.length)
    this.#staged += io.length
    io.onData(this.#staging, at)
  }

  #wrote(io: Io, allocated: 0 | 1): void {
    // Only whole blocks can be given back.
    const first = allocated === 1 ? Math.floor(io.offset / BLOCK_BYTES) : Math.ceil(io.offset / BLOCK_BYTES)
    const end = (io.offset + io.length) / BLOCK_BYTES
    this.#allocated.fill(allocated, first, Math.max(first, allocated === 1 ? Math.ceil(end) : Math.floor(end)))
    if (!this.keepsDirty) return
    for (let block = Math.floor(io.offset / BLOCK_BYTES); block < end; block++) {
      if (io.fua) this.dirty.delete(block)
      else this.dirty.add(block)
    }
  }

  #healed(offset: number, length: number): void {
    if (this.badBlocks.size === 0) return
    for (let block = Math.ceil(offset / BLOCK_BYTES); (block + 1) * BLOCK_BYTES <= offset + length; block++) this.badBlocks.delete(block)
  }

  #isAllocated(io: Io): boolean {
    const end = Math.ceil((io.offset + io.length) / BLOCK_BYTES)
    return !this.#allocated.subarray(Math.floor(io.offset / BLOCK_BYTES), end).includes(0)
  }

  #enter(io: Io): void {
    this.inFlight++
    this.#bytesInFlight += bytesOf(io)
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight)
    this.mostBytesInFlight = Math.max(this.mostBytesInFlight, this.#bytesInFlight)
  }
}

function bytesOf(io: Io): number {
  return io.op <= OP.WRITE ? io.length : 0
}
