import {reactor} from '../../../../../lib/net/reactor.js'
import type {Slab} from '../../../../../lib/net/slab.js'
import {Io, type BlockDevice} from '../../../../../protocol/block-device.js'
import {CheckCondition, REFUSED} from '../check-condition.js'
import {CONDITION} from '../sense.js'

/** A request to the device that gives way to exclusive use of its range. */
export abstract class GatedIo extends Io {
  // For the gate's own use.
  previous: GatedIo | undefined
  next: GatedIo | undefined
  /** Claims that overlap and came first. */
  before = 0
  /** Claims that overlap and came later. */
  readonly after: Claim[] = []
  parkedSlab: Slab | undefined
  parkedStart = 0
}

/** Exclusive use of a range, or a place in the queue for it. */
export class Claim {
  before = 0
  /** Requests and claims that overlap and came later. */
  readonly after: (GatedIo | Claim)[] = []
  ready: (() => void) | undefined

  constructor(
    readonly offset: number,
    readonly end: number,
  ) {}
}

/**
 * Lets some commands have a range of the device to themselves: COMPARE AND WRITE and ORWRITE read, decide and write with
 * nothing in between. Ordinary requests never wait for each other; they wait for claims that came before them, and claims
 * wait for all that came before them. So nobody starves, and without claims, which is nearly always, the cost is a list.
 *
 * The unit is a request to the device, not a command: a claim waits for the device, never for an initiator's data.
 */
export class DeviceGate {
  readonly #device: BlockDevice
  /** All requests between submit() and done(). */
  #first: GatedIo | undefined
  readonly #claims: Claim[] = []
  /** The claim to all there is, from when it is made. */
  #alone: Claim | undefined

  constructor(device: BlockDevice) {
    this.#device = device
  }

  /** As BlockDevice.submit(), after whatever claims are in the way. */
  submit(io: GatedIo, slab?: Slab, start = 0): void {
    this.#link(io)
    if (this.#alone !== undefined) {
      io.onDone(REFUSED)
      return
    }
    if (this.#claims.length > 0) this.#queue(io)
    if (io.before === 0) this.#device.submit(io, slab, start)
    else this.#park(io, slab, start)
  }

  /** To be called first in onDone(), before the object is used again. */
  done(io: GatedIo): void {
    this.#unlink(io)
    if (io.after.length === 0) return
    for (const claim of io.after) this.#advance(claim)
    io.after.length = 0
  }

  /**
   * Resolves when the range is the caller's, who must release() it in every case, and who goes to the device directly. Throws
   * CheckCondition while somebody has the device alone.
   */
  async claim(offset: number, length: number): Promise<Claim> {
    if (this.#alone !== undefined) throw new CheckCondition(CONDITION.SANITIZE_IN_PROGRESS)
    return this.#claim(new Claim(offset, offset + length))
  }

  /** As claim() of everything, and requests and claims that come from now on are refused instead of waiting for it. */
  async claimAll(): Promise<Claim> {
    if (this.#alone !== undefined) throw new CheckCondition(CONDITION.SANITIZE_IN_PROGRESS)
    this.#alone = new Claim(0, Infinity)
    return this.#claim(this.#alone)
  }

  async #claim(claim: Claim): Promise<Claim> {
    for (let io = this.#first; io !== undefined; io = io.next) {
      if (!overlaps(io, claim)) continue
      io.after.push(claim)
      claim.before++
    }
    for (const earlier of this.#claims) {
      if (claim.offset >= earlier.end || earlier.offset >= claim.end) continue
      earlier.after.push(claim)
      claim.before++
    }
    this.#claims.push(claim)
    if (claim.before > 0) {
      await new Promise<void>(resolve => {
        claim.ready = resolve
      })
    }
    return claim
  }

  release(claim: Claim): void {
    if (claim === this.#alone) this.#alone = undefined
    this.#claims.splice(this.#claims.indexOf(claim), 1)
    for (const waiting of claim.after) {
      if (waiting instanceof Claim) this.#advance(waiting)
      else if (--waiting.before === 0) this.#unpark(waiting)
    }
  }

  #queue(io: GatedIo): void {
    for (const claim of this.#claims) {
      if (!overlaps(io, claim)) continue
      claim.after.push(io)
      io.before++
    }
  }

  #advance(claim: Claim): void {
    if (--claim.before === 0) claim.ready?.()
  }

  #park(io: GatedIo, slab: Slab | undefined, start: number): void {
    slab?.retain()
    io.parkedSlab = slab
    io.parkedStart = start
  }

  #unpark(io: GatedIo): void {
    const slab = io.parkedSlab
    io.parkedSlab = undefined
    this.#device.submit(io, slab, io.parkedStart)
    // The device may have queued the bytes by reference until the end of the turn.
    if (slab !== undefined) reactor.releaseAfterFlush(slab)
  }

  #link(io: GatedIo): void {
    io.before = 0
    io.previous = undefined
    io.next = this.#first
    if (this.#first !== undefined) this.#first.previous = io
    this.#first = io
  }

  #unlink(io: GatedIo): void {
    if (io.next !== undefined) io.next.previous = io.previous
    if (io.previous === undefined) this.#first = io.next
    else io.previous.next = io.next
    io.previous = undefined
    io.next = undefined
  }
}

function overlaps(io: Io, claim: Claim): boolean {
  return io.offset < claim.end && claim.offset < io.offset + io.length
}
