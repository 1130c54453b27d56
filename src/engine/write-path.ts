import {LonghornError} from '../lib/errors.js'
import {reactor} from '../lib/net/reactor.js'
import type {Slab} from '../lib/net/slab.js'
import type {RepeatLog} from '../lib/repeat-log.js'
import {ERRNO, OP, type Io} from '../protocol/block-device.js'
import {FRAME, MAX_FRAME_RANGE} from '../protocol/frame.js'
import type {ChangedRegions} from './changed-regions.js'
import type {RecordGate} from './record-gate.js'
import type {ReplicaLink} from './replica-link.js'
import type {VolumeLinks} from './volume-links.js'
import type {VolumeRequests} from './volume-requests.js'
import {writeZeroesByHand} from './zero-writer.js'

export interface WritePathOptions {
  readonly links: VolumeLinks
  readonly requests: VolumeRequests
  readonly recording: RecordGate
  readonly changed: ChangedRegions
  readonly repeats: RepeatLog
  /** Every write survives a power cut by itself, as if it had FUA. */
  readonly writeThrough: boolean
  /** Starts a write that has entered(), of what the slab has from its beginning. */
  readonly start: (io: Io, slab: Slab) => void
}

/** What goes to all replicas of a volume, changes and flushes: each is finished when every one of them has answered or has been dropped. */
export class WritePath {
  readonly #links: VolumeLinks
  readonly #requests: VolumeRequests
  readonly #recording: RecordGate
  readonly #changed: ChangedRegions
  readonly #repeats: RepeatLog
  readonly #writeThrough: boolean
  readonly #start: (io: Io, slab: Slab) => void

  constructor({links, requests, recording, changed, repeats, writeThrough, start}: WritePathOptions) {
    this.#links = links
    this.#requests = requests
    this.#recording = recording
    this.#changed = changed
    this.#repeats = repeats
    this.#writeThrough = writeThrough
    this.#start = start
  }

  write(io: Io, slab: Slab, start: number): void {
    if (!this.#hasWriters(io)) return
    if (io.atomic) {
      this.#writeAtomic(io, slab, start)
      return
    }
    const durable = io.fua || this.#writeThrough
    this.#beforeChange(io)
    const {writers} = this.#links
    io.waiting = writers.length
    for (const link of writers) {
      link.client.write(durable && link.canWriteDurably ? FRAME.WRITE_DURABLE : FRAME.WRITE, io, slab, start)
    }
  }

  #writeAtomic(io: Io, slab: Slab, start: number): void {
    const unable = this.#links.writers.find(link => !link.canWriteAtomically)
    if (unable !== undefined) {
      this.#repeats.warn(unable.address, {replica: unable.address, offset: io.offset, length: io.length}, 'an atomic write was refused: this replica may leave a part of it')
      this.#requests.done(io, ERRNO.EINVAL)
      return
    }
    this.#beforeChange(io)
    const {writers} = this.#links
    io.waiting = writers.length
    for (const link of writers) link.client.write(FRAME.WRITE_ATOMIC, io, slab, start)
  }

  flush(io: Io): void {
    if (!this.#hasWriters(io)) return
    const {writers} = this.#links
    const able = writers.filter(link => link.canFlush)
    if (able.length === 0) {
      // Only replicas of upstream, which has no such message. Said once, when the replica was added.
      this.#requests.done(io, 0)
      return
    }
    io.countsFlush = able.length === writers.length && this.#changed.flushBegins()
    io.waiting = able.length
    for (const link of able) link.client.request(FRAME.FLUSH, io)
  }

  /** DISCARD and WRITE_ZEROES. */
  wipe(io: Io): void {
    if (!this.#hasWriters(io)) return
    if (io.length === 0) {
      this.#requests.done(io, 0)
    } else if (io.length > MAX_FRAME_RANGE) {
      this.#requests.done(io, ERRNO.EINVAL)
    } else if (io.op === OP.WRITE_ZEROES && this.#links.writers.some(link => !link.canWriteZeroes)) {
      // Its writes are part of a request that has begun: a barrier waits for them.
      const write = (part: Io, slab: Slab): void => {
        this.#requests.entered()
        this.#start(part, slab)
      }
      writeZeroesByHand(write, io, error => this.#wiped(io, error))
    } else {
      const type = io.op === OP.DISCARD ? FRAME.UNMAP : io.noUnmap ? FRAME.WRITE_ZEROES_ALLOCATED : FRAME.WRITE_ZEROES
      this.#beforeChange(io)
      const {writers} = this.#links
      io.waiting = writers.length
      for (const link of writers) link.client.request(type, io)
    }
  }

  #wiped(io: Io, error: number): void {
    if (error !== 0 || io.flushing || !(io.fua || this.#writeThrough)) {
      this.#requests.done(io, error)
      return
    }
    io.flushing = true
    io.error = 0
    io.succeeded = 0
    // Nobody is to blame, in the flush, for what the request before it took.
    io.startedAt = reactor.time()
    this.flush(io)
  }

  /** A replica has answered; see LinkOwner.replied(). */
  replied(link: ReplicaLink, io: Io, error: number, text: string): void {
    if (error === 0) {
      io.succeeded++
    } else {
      io.failed |= link.bit
      link.refusal = text
      // A full disk is an error only when no other replica is worse off: it can be made good by freeing space.
      if (io.error === 0 || io.error === ERRNO.ENOSPC) io.error = error
    }
    if (--io.waiting === 0) this.#settle(io, text)
  }

  /** A replica, which is out of use by now, will not answer. */
  lost(io: Io, reason: Error): void {
    if (io.error === 0) io.error = ERRNO.EIO
    if (--io.waiting === 0) this.#settle(io, reason.message)
  }

  /** Every replica has answered a request that went to all of them, or is gone. */
  #settle(io: Io, text: string): void {
    let error = 0
    if (io.succeeded > 0 && this.#links.readers.some(link => (io.failed & link.bit) === 0)) {
      // What some have and others refused would make them differ: those that refused are out.
      if (io.failed !== 0) this.#failThose(io.failed)
    } else {
      error = io.error === 0 ? ERRNO.EIO : io.error
      this.#repeats.error(`${io.op} ${error}`, {op: io.op, offset: io.offset, length: io.length, error: text}, 'failed on all replicas')
      // One that is being rebuilt cannot take the place of the one it is copied from; what it has and that one refused puts it out.
      if (io.succeeded > 0) this.#failThose(~io.failed)
    }
    if (io.countsFlush) {
      io.countsFlush = false
      this.#changed.flushEnded(error === 0)
    } else {
      // Again: a flush that began after it and has ended may not have had it.
      this.#changed.changed(io.offset, io.length)
    }
    if (io.op === OP.DISCARD || io.op === OP.WRITE_ZEROES) this.#wiped(io, error)
    else this.#requests.done(io, error)
  }

  #failThose(bits: number): void {
    for (const link of this.#links.all) {
      if ((bits & link.bit) === 0) continue
      const why = link.refusal === '' ? 'it has a write that the others refused' : link.refusal
      this.#links.fail(link, new LonghornError('IO', `replica ${link.address}: ${why}`))
    }
  }

  #beforeChange(io: Io): void {
    this.#recording.changeBegins()
    this.#changed.changed(io.offset, io.length)
  }

  /** Ends it when there is no replica that is whole: those that are being rebuilt do not count. */
  #hasWriters(io: Io): boolean {
    if (this.#links.readers.length > 0) return true
    this.#requests.done(io, ERRNO.EIO)
    return false
  }
}
