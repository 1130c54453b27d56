import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {reactor} from '../lib/net/reactor.js'
import type {Slab} from '../lib/net/slab.js'
import {RepeatLog} from '../lib/repeat-log.js'
import {ERRNO, inRange, OP, type BlockDevice, type Extent, type Io} from '../protocol/block-device.js'
import {FRAME} from '../protocol/frame.js'
import {askBlockStatus} from './block-status.js'
import {Metrics} from './metrics.js'
import {ChangeGate, type HeldChange} from './change-gate.js'
import {DirectIo} from './direct-io.js'
import {ReadRepair} from './read-repair.js'
import type {LinkOwner, ReplicaLink} from './replica-link.js'
import {ReplicaSweep} from './replica-sweep.js'
import {ChangedRegions, type ChangedState, type RegionSet} from './changed-regions.js'
import {writeZeroesByHand} from './zero-writer.js'

/** The longest DISCARD or WRITE_ZEROES that one frame's 32-bit size can say, on a block. */
const MAX_FRAME_RANGE = 0xffff_f000

/** Each has a bit of its own in a small integer. */
export const MOST_REPLICAS = 30

export interface VolumeOptions {
  readonly name: string
  readonly sizeBytes: number
  /** Every write survives a power cut by itself, as if it had FUA. */
  readonly writeThrough: boolean
  /** A replica that does not answer for this long is dropped; the last one gets twice as long. */
  readonly replicaTimeoutMs: number
  readonly log: Log
}

/**
 * The replicator: one volume over its replicas. A write goes to all usable replicas at once and is finished when each
 * has answered or has been dropped; a read goes to one. Replicas get all writes over one ordered connection and in the same
 * order, so overlapping writes end the same everywhere.
 */
export class Volume implements BlockDevice, LinkOwner {
  readonly name: string
  readonly metrics = new Metrics(performance.now())
  readonly #options: VolumeOptions
  /** What may happen with every request. */
  readonly #repeats: RepeatLog
  readonly #links: ReplicaLink[] = []
  /** RW replicas, and those that take writes (RW and WO): kept beside `#links` because every request looks at them. */
  #readers: readonly ReplicaLink[] = []
  #writers: readonly ReplicaLink[] = []
  #sizeBytes: number
  #inFlight = 0
  /** What came while the volume stands still; undefined while it does not. */
  #held: HeldChange[] | undefined
  readonly #changes = new ChangeGate()
  /** Of what one replica could not read and another could. */
  readonly repairs: ReadRepair
  readonly #idle: (() => void)[] = []
  /** Changes that are done on all replicas and not acknowledged yet: the members are being recorded. Undefined while they are not. */
  #unacknowledged: Io[] | undefined
  #recordedLate = false
  #recordFirst = false
  #recording: Promise<void> | undefined
  readonly #changed: ChangedRegions
  #closed = false
  readonly #sweep = new ReplicaSweep(() => this.#writers)
  /** Called after a replica has been dropped. */
  onReplicaFailed: (link: ReplicaLink, reason: Error) => void = () => undefined
  /**
   * Records durably on the members who they are; called when one of them has been dropped, and no change is acknowledged before it
   * resolves. It drops those on which it fails.
   */
  recordMembers: () => Promise<void> = () => Promise.resolve()

  constructor(options: VolumeOptions) {
    this.name = options.name
    this.#options = options
    this.#sizeBytes = options.sizeBytes
    this.#changed = new ChangedRegions(options.sizeBytes)
    this.#repeats = new RepeatLog(options.log)
    this.repairs = new ReadRepair(this.#repairHost(), this.#repeats)
    this.#sweep.start()
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** Its replicas have become larger. Frontends look at the size with every request. */
  grow(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes
    this.#changed.grow(sizeBytes)
  }

  get replicas(): readonly ReplicaLink[] {
    return this.#links
  }

  /** Those in use. */
  get members(): readonly ReplicaLink[] {
    return this.#writers
  }

  /** Those that can be read. */
  get readers(): readonly ReplicaLink[] {
    return this.#readers
  }

  /** The next free bit for a link of this volume. Throws USAGE when there are MOST_REPLICAS already. */
  nextBit(): number {
    for (let shift = 0; shift < MOST_REPLICAS; shift++) {
      if (!this.#links.some(link => link.bit === 1 << shift)) return 1 << shift
    }
    throw new LonghornError('USAGE', `a volume cannot have more than ${MOST_REPLICAS} replicas`)
  }

  addReplica(link: ReplicaLink): void {
    this.#links.push(link)
    this.#membersChanged()
  }

  /** A replica that was being rebuilt is whole: from now on it is read as well. */
  promote(link: ReplicaLink): void {
    if (link.mode !== 'WO') return
    link.mode = 'RW'
    this.#membersChanged()
    this.#options.log.info({replica: link.address, readers: this.#readers.length}, 'replica is up to date')
  }

  /** Where a dropped replica, by its name, may differ; see ChangedRegions.take(). */
  takeMissed(name: string): RegionSet | undefined {
    return this.#changed.take(name)
  }

  /** The volume has become something else, otherwise than by writing: those that were dropped may differ anywhere. */
  forgetMissed(): void {
    this.#changed.forgetMissed()
  }

  /** Forgets a replica; one that is still in use is taken out of use first. */
  removeReplica(link: ReplicaLink, reason: Error): void {
    this.fail(link, reason)
    const at = this.#links.indexOf(link)
    if (at !== -1) this.#links.splice(at, 1)
  }

  /** Requests that have begun and are not done. */
  get requestsInFlight(): number {
    return this.#inFlight
  }

  submit(io: Io, slab?: Slab, start = 0): void {
    if (this.#held === undefined) {
      this.#begin(io, slab, start)
      return
    }
    slab?.retain()
    this.#held.push({io, slab, start})
  }

  /**
   * Lets nothing begin from now on and resolves when nothing is in flight: a barrier. What comes meanwhile waits for
   * resume(); how much that can be is what the frontends let their initiators have in flight.
   */
  async pause(): Promise<void> {
    if (this.#held !== undefined) throw new Error('the volume stands still already')
    this.#held = []
    await this.drained()
  }

  /** It stands still, and nothing is asked of a replica or being recorded. */
  get isQuiet(): boolean {
    return this.#held !== undefined && this.#inFlight === 0 && this.#unacknowledged === undefined && this.#writers.every(link => link.client.isQuiet)
  }

  /** Does nothing any more, also not with its replicas, until reattach(): another process may go on with their connections. It is quiet. */
  detach(): void {
    this.#sweep.stop()
    for (const link of this.#writers) link.client.detach()
  }

  /** Ends detach(). */
  reattach(): void {
    this.#sweep.start()
    for (const link of this.#writers) link.client.reattach()
  }

  /** Where replicas differ, for one that goes on in place of this. */
  get changes(): ChangedState {
    return this.#changed.state
  }

  /** Goes on with what was known there. */
  adoptChanges(changes: ChangedState): void {
    this.#changed.goOn(changes)
  }

  /** Lets go on what waits since pause(), in the order it came. */
  resume(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const {io, slab, start} of held) {
      this.#begin(io, slab, start)
      // A frame that goes out at the end of this turn still points into it.
      if (slab !== undefined) reactor.releaseAfterFlush(slab)
    }
    this.repairs.goOn()
  }

  #begin(io: Io, slab: Slab | undefined, start: number): void {
    this.#inFlight++
    if (this.#changes.admit(io, slab, start)) this.#start(io, slab, start)
  }

  #start(io: Io, slab: Slab | undefined, start: number): void {
    io.waiting = 0
    io.error = 0
    io.succeeded = 0
    io.failed = 0
    io.flushing = false
    io.countsFlush = false
    io.startedAt = reactor.time()
    if (!inRange(io.offset, io.length, this.#sizeBytes)) {
      this.#done(io, ERRNO.EINVAL)
      return
    }
    switch (io.op) {
      case OP.READ:
        this.#read(io)
        return
      case OP.WRITE:
        if (this.#hasWriters(io)) this.#write(io, slab!, start)
        return
      case OP.FLUSH:
        if (this.#hasWriters(io)) this.#flush(io)
        return
      case OP.DISCARD:
      case OP.WRITE_ZEROES:
        if (this.#hasWriters(io)) this.#wipe(io)
        return
      case OP.BLOCK_STATUS:
        throw new Error('block status is asked with blockStatus()')
      case OP.DIRECT:
        throw new Error('a question for one replica goes to its link')
    }
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    const able = this.#readers.find(link => link.canTellStatus)
    // A replica of upstream cannot tell. "May hold anything" is always a true answer.
    if (able === undefined) return [{offset, length, allocated: true}]
    return askBlockStatus(able, offset, Math.min(length, MAX_FRAME_RANGE))
  }

  /** Resolves when nothing is in flight. */
  async drained(): Promise<void> {
    if (this.#inFlight === 0) return
    await new Promise<void>(resolve => {
      this.#idle.push(resolve)
    })
  }

  /** Ends the connections; requests still in flight fail. Safe twice. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#sweep.stop()
    const links = this.#links.filter(link => link.mode !== 'ERR')
    this.#readers = []
    this.#writers = []
    const reason = new LonghornError('INTERRUPTED', `volume ${this.name} is closing`)
    for (const link of links) link.client.close(reason)
    this.#repeats.close()
  }

  /** Takes a replica out of use: its connection ends, and what it has not answered counts as failed there. */
  fail(link: ReplicaLink, reason: Error): void {
    if (link.mode === 'ERR' || this.#closed) return
    const {mode} = link
    link.drop(reason)
    if (!this.#links.includes(link)) {
      // It was never in use.
      link.client.close(reason)
      return
    }
    if (mode === 'RW') this.#changed.dropped(link.name)
    this.#membersChanged()
    if (link.member) this.#recordMembers()
    this.#options.log.error({replica: link.address, reason: reason.message, left: this.#readers.length}, 'replica dropped')
    this.onReplicaFailed(link, reason)
    link.client.close(reason)
  }

  replied(link: ReplicaLink, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    if (io.op === OP.READ) {
      this.#readReplied(link, io, error, text, slab, start, length)
      return
    }
    if (io.op === OP.DIRECT) {
      const question = io as DirectIo
      question.onAnswer(error, text, slab, start, length)
      return
    }
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

  lost(link: ReplicaLink, reason: Error, unanswered: readonly Io[]): void {
    if (!this.#closed) this.fail(link, reason)
    for (const io of unanswered) {
      if (io.op === OP.READ) {
        io.failed |= link.bit
        this.#readAgain(io)
      } else if (io instanceof DirectIo) {
        io.onLost(reason)
      } else {
        if (io.error === 0) io.error = ERRNO.EIO
        if (--io.waiting === 0) this.#settle(io, reason.message)
      }
    }
  }

  #read(io: Io): void {
    let best: ReplicaLink | undefined
    let bestLoad = Infinity
    for (const link of this.#readers) {
      if ((io.failed & link.bit) !== 0) continue
      const load = link.load
      if (load < bestLoad) {
        best = link
        bestLoad = load
      }
    }
    if (best === undefined) this.#done(io, io.error === 0 ? ERRNO.EIO : io.error)
    else best.client.request(FRAME.READ, io)
  }

  #readReplied(link: ReplicaLink, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    if (error === 0 && length !== io.length) {
      this.fail(link, new LonghornError('PROTOCOL', `replica ${link.address}: answered ${length} bytes to a read of ${io.length}`))
      error = ERRNO.EIO
    }
    if (error === 0) {
      const {failed} = io
      if (failed !== 0) this.repairs.wanted(io, this.#readers.filter(({bit}) => (failed & bit) !== 0))
      io.onData(slab!, start)
      this.#done(io, 0)
      return
    }
    this.#repeats.warn(link.address, {replica: link.address, offset: io.offset, length: io.length, error: text}, 'read failed on a replica')
    io.failed |= link.bit
    io.error = error
    this.#readAgain(io)
  }

  /** On another replica, which has all its time: it is not to blame for what the one before it took. */
  #readAgain(io: Io): void {
    io.startedAt = reactor.time()
    this.#read(io)
  }

  #write(io: Io, slab: Slab, start: number): void {
    if (io.atomic) {
      this.#writeAtomic(io, slab, start)
      return
    }
    const durable = io.fua || this.#options.writeThrough
    this.#beforeChange(io)
    io.waiting = this.#writers.length
    for (const link of this.#writers) {
      link.client.write(durable && link.canWriteDurably ? FRAME.WRITE_DURABLE : FRAME.WRITE, io, slab, start)
    }
  }

  #writeAtomic(io: Io, slab: Slab, start: number): void {
    const unable = this.#writers.find(link => !link.canWriteAtomically)
    if (unable !== undefined) {
      this.#repeats.warn(unable.address, {replica: unable.address, offset: io.offset, length: io.length}, 'an atomic write was refused: this replica may leave a part of it')
      this.#done(io, ERRNO.EINVAL)
      return
    }
    this.#beforeChange(io)
    io.waiting = this.#writers.length
    for (const link of this.#writers) link.client.write(FRAME.WRITE_ATOMIC, io, slab, start)
  }

  #flush(io: Io): void {
    const able = this.#writers.filter(link => link.canFlush)
    if (able.length === 0) {
      // Only replicas of upstream, which has no such message. Said once, when the replica was added.
      this.#done(io, 0)
      return
    }
    io.countsFlush = able.length === this.#writers.length && this.#changed.flushBegins()
    io.waiting = able.length
    for (const link of able) link.client.request(FRAME.FLUSH, io)
  }

  /** DISCARD and WRITE_ZEROES. */
  #wipe(io: Io): void {
    if (io.length === 0) {
      this.#done(io, 0)
    } else if (io.length > MAX_FRAME_RANGE) {
      this.#done(io, ERRNO.EINVAL)
    } else if (io.op === OP.WRITE_ZEROES && this.#writers.some(link => !link.canWriteZeroes)) {
      // Its writes are part of a request that has begun: a barrier waits for them.
      const write = (part: Io, slab: Slab): void => {
        this.#inFlight++
        this.#start(part, slab, 0)
      }
      writeZeroesByHand(write, io, error => this.#wiped(io, error))
    } else {
      const type = io.op === OP.DISCARD ? FRAME.UNMAP : io.noUnmap ? FRAME.WRITE_ZEROES_ALLOCATED : FRAME.WRITE_ZEROES
      this.#beforeChange(io)
      io.waiting = this.#writers.length
      for (const link of this.#writers) link.client.request(type, io)
    }
  }

  #wiped(io: Io, error: number): void {
    if (error !== 0 || io.flushing || !(io.fua || this.#options.writeThrough)) {
      this.#done(io, error)
      return
    }
    io.flushing = true
    io.error = 0
    io.succeeded = 0
    if (this.#hasWriters(io)) this.#flush(io)
  }

  /** Every replica has answered a request that went to all of them, or is gone. */
  #settle(io: Io, text: string): void {
    let error = 0
    if (io.succeeded > 0 && this.#readers.some(link => (io.failed & link.bit) === 0)) {
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
    else this.#done(io, error)
  }

  #failThose(bits: number): void {
    for (const link of this.#links) {
      if ((bits & link.bit) === 0) continue
      const why = link.refusal === '' ? 'it has a write that the others refused' : link.refusal
      this.fail(link, new LonghornError('IO', `replica ${link.address}: ${why}`))
    }
  }

  #hasWriters(io: Io): boolean {
    if (this.#readers.length > 0) return true
    this.#done(io, ERRNO.EIO)
    return false
  }

  #done(io: Io, error: number): void {
    if (this.#unacknowledged !== undefined && error === 0 && io.op !== OP.READ) {
      this.#unacknowledged.push(io)
      return
    }
    this.#changes.ended(io)
    this.#inFlight--
    if (error === 0 && (io.op === OP.READ || io.op === OP.WRITE)) this.metrics.count(io, reactor.time())
    io.onDone(error)
    this.#wakeIfIdle()
  }

  #wakeIfIdle(): void {
    if (this.#inFlight > 0 || this.#idle.length === 0) return
    for (const resolve of this.#idle.splice(0)) resolve()
  }

  #repairHost() {
    const volume = this
    return {
      changes: this.#changes,
      get sizeBytes() {
        return volume.#sizeBytes
      },
      get standsStill() {
        return volume.#held !== undefined
      },
      get readers() {
        return volume.#readers
      },
      entered: () => void this.#inFlight++,
      left: (changes: readonly HeldChange[]) => {
        for (const {io, slab, start} of changes) {
          this.#start(io, slab, start)
          if (slab !== undefined) reactor.releaseAfterFlush(slab)
        }
        this.#inFlight--
        this.#wakeIfIdle()
      },
      fail: (link: ReplicaLink, reason: Error) => this.fail(link, reason),
    }
  }

  /**
   * From the first change on the members are those of now: that is recorded before it is acknowledged. Whoever only reads from
   * some of the replicas does not part them from the others.
   */
  recordBeforeChange(): void {
    this.#recordFirst = true
  }

  /** Resolves when the members are recorded, for changes that are not requests. */
  async recorded(): Promise<void> {
    if (this.#recordFirst) this.#recordMembers()
    await this.#recording
  }

  #beforeChange(io: Io): void {
    if (this.#recordFirst) this.#recordMembers()
    this.#changed.changed(io.offset, io.length)
  }

  /** A member is gone, or it is the first change: what the members have is acknowledged when they know who they are. */
  #recordMembers(): void {
    this.#recordFirst = false
    this.#recordedLate = true
    if (this.#unacknowledged !== undefined || this.#closed) return
    this.#unacknowledged = []
    this.#recording = this.#recordUntilSettled()
  }

  async #recordUntilSettled(): Promise<void> {
    while (this.#recordedLate && !this.#closed) {
      this.#recordedLate = false
      try {
        await this.recordMembers()
      } catch (error) {
        this.#options.log.error({err: error}, 'the members could not be recorded')
      }
    }
    const done = this.#unacknowledged ?? []
    this.#unacknowledged = undefined
    const error = this.#readers.length === 0 ? ERRNO.EIO : 0
    for (const io of done) this.#done(io, error)
  }

  #membersChanged(): void {
    this.#readers = this.#links.filter(link => link.mode === 'RW')
    this.#writers = this.#links.filter(link => link.mode !== 'ERR')
    const factor = this.#readers.length === 1 ? 2 : 1
    for (const link of this.#writers) link.client.timeoutMs = this.#options.replicaTimeoutMs * factor
  }
}
