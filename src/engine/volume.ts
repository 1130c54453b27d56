import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {reactor} from '../lib/net/reactor.js'
import type {Slab} from '../lib/net/slab.js'
import {RepeatLog} from '../lib/repeat-log.js'
import {ERRNO, inRange, OP, type BlockDevice, type Extent, type Io} from '../protocol/block-device.js'
import {MAX_FRAME_RANGE} from '../protocol/frame.js'
import {askBlockStatus} from './block-status.js'
import type {HeldChange} from './change-gate.js'
import {ChangedRegions, type ChangedState, type RegionSet} from './changed-regions.js'
import {DirectIo} from './direct-io.js'
import {Metrics} from './metrics.js'
import {ReadPath} from './read-path.js'
import {ReadRepair} from './read-repair.js'
import {RecordGate} from './record-gate.js'
import type {LinkOwner, ReplicaLink} from './replica-link.js'
import {VolumeLinks} from './volume-links.js'
import {VolumeRequests} from './volume-requests.js'
import {WritePath} from './write-path.js'

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
 *
 * This is what others see of it, and where a request finds its way: VolumeRequests lets it begin and end, ReadPath or WritePath
 * carries it out on those that VolumeLinks has in use, and RecordGate keeps what must not be acknowledged yet.
 */
export class Volume implements BlockDevice, LinkOwner {
  readonly name: string
  readonly metrics = new Metrics(performance.now())
  /** Of what one replica could not read and another could. */
  readonly repairs: ReadRepair
  readonly #repeats: RepeatLog
  readonly #changed: ChangedRegions
  readonly #recording: RecordGate
  readonly #requests: VolumeRequests
  readonly #links: VolumeLinks
  readonly #reads: ReadPath
  readonly #writes: WritePath
  #sizeBytes: number
  /** Called after a replica has been dropped. */
  onReplicaFailed: (link: ReplicaLink, reason: Error) => void = () => undefined
  /**
   * Records durably on the members who they are; called when one of them has been dropped, and no change is acknowledged before it
   * resolves. It drops those on which it fails.
   */
  recordMembers: () => Promise<void> = () => Promise.resolve()

  constructor({name, sizeBytes, writeThrough, replicaTimeoutMs, log}: VolumeOptions) {
    this.name = name
    this.#sizeBytes = sizeBytes
    const repeats = (this.#repeats = new RepeatLog(log))
    const changed = (this.#changed = new ChangedRegions(sizeBytes))
    const recording = (this.#recording = new RecordGate({record: () => this.recordMembers(), acknowledge: done => this.#acknowledge(done), log}))
    const requests = (this.#requests = new VolumeRequests(recording, this.metrics))
    const links = (this.#links = new VolumeLinks({replicaTimeoutMs, changed, recording, log, onFailed: (link, reason) => this.onReplicaFailed(link, reason)}))
    const repairs = (this.repairs = new ReadRepair({links, requests, sizeBytes: () => this.#sizeBytes, start: change => this.#startHeld(change)}, repeats))
    this.#reads = new ReadPath({links, requests, repairs, repeats})
    this.#writes = new WritePath({links, requests, recording, changed, repeats, writeThrough, start: (io, slab) => this.#start(io, slab, 0)})
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
    return this.#links.all
  }

  /** Those in use. */
  get members(): readonly ReplicaLink[] {
    return this.#links.writers
  }

  /** Those that can be read. */
  get readers(): readonly ReplicaLink[] {
    return this.#links.readers
  }

  /** The next free bit for a link of this volume. Throws USAGE when there are MOST_REPLICAS already. */
  nextBit(): number {
    return this.#links.nextBit()
  }

  addReplica(link: ReplicaLink): void {
    this.#links.add(link)
  }

  /** A replica that was being rebuilt is whole: from now on it is read as well. */
  promote(link: ReplicaLink): void {
    this.#links.promote(link)
  }

  /** Takes a replica out of use: its connection ends, and what it has not answered counts as failed there. */
  fail(link: ReplicaLink, reason: Error): void {
    this.#links.fail(link, reason)
  }

  /** Forgets a replica; one that is still in use is taken out of use first. */
  removeReplica(link: ReplicaLink, reason: Error): void {
    this.#links.remove(link, reason)
  }

  /** Where a dropped replica, by its name, may differ; see ChangedRegions.take(). */
  takeMissed(name: string): RegionSet | undefined {
    return this.#changed.take(name)
  }

  /** The volume has become something else, otherwise than by writing: those that were dropped may differ anywhere. */
  forgetMissed(): void {
    this.#changed.forgetMissed()
  }

  /** Where replicas differ, for one that goes on in place of this. */
  get changes(): ChangedState {
    return this.#changed.state
  }

  /** Goes on with what was known there. */
  adoptChanges(changes: ChangedState): void {
    this.#changed.goOn(changes)
  }

  /**
   * From the first change on the members are those of now: that is recorded before it is acknowledged. Whoever only reads from
   * some of the replicas does not part them from the others.
   */
  recordBeforeChange(): void {
    this.#recording.beginWithNextChange()
  }

  /** Resolves when the members are recorded, for changes that are not requests. */
  recorded(): Promise<void> {
    return this.#recording.recorded()
  }

  /** Requests that have begun and are not done. */
  get requestsInFlight(): number {
    return this.#requests.inFlight
  }

  /**
   * Lets nothing begin from now on and resolves when nothing is in flight: a barrier. What comes meanwhile waits for
   * resume(); how much that can be is what the frontends let their initiators have in flight.
   */
  pause(): Promise<void> {
    return this.#requests.pause()
  }

  /** Lets go on what waits since pause(), in the order it came. */
  resume(): void {
    for (const {io, slab, start} of this.#requests.resume()) {
      this.submit(io, slab, start)
      // A frame that goes out at the end of this turn still points into it.
      if (slab !== undefined) reactor.releaseAfterFlush(slab)
    }
    this.repairs.goOn()
  }

  /** Resolves when nothing is in flight. */
  drained(): Promise<void> {
    return this.#requests.drained()
  }

  /** It stands still, and nothing is asked of a replica or being recorded. */
  get isQuiet(): boolean {
    return this.#requests.standsStill && this.#requests.inFlight === 0 && !this.#recording.isRecording && this.#links.areQuiet
  }

  /** Does nothing any more, also not with its replicas, until reattach(): another process may go on with their connections. It is quiet. */
  detach(): void {
    this.#links.detach()
  }

  /** Ends detach(). */
  reattach(): void {
    this.#links.reattach()
  }

  /** Ends the connections; requests still in flight fail. Safe twice. */
  close(): void {
    this.#recording.close()
    this.#links.close(new LonghornError('INTERRUPTED', `volume ${this.name} is closing`))
    this.#repeats.close()
  }

  submit(io: Io, slab?: Slab, start = 0): void {
    if (this.#requests.admit(io, slab, start)) this.#start(io, slab, start)
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
      this.#requests.done(io, ERRNO.EINVAL)
      return
    }
    switch (io.op) {
      case OP.READ:
        this.#reads.read(io)
        return
      case OP.WRITE:
        this.#writes.write(io, slab!, start)
        return
      case OP.FLUSH:
        this.#writes.flush(io)
        return
      case OP.DISCARD:
      case OP.WRITE_ZEROES:
        this.#writes.wipe(io)
        return
      case OP.BLOCK_STATUS:
        throw new Error('block status is asked with blockStatus()')
      case OP.DIRECT:
        throw new Error('a question for one replica goes to its link')
    }
  }

  #startHeld({io, slab, start}: HeldChange): void {
    this.#start(io, slab, start)
    // A frame that goes out at the end of this turn still points into it.
    if (slab !== undefined) reactor.releaseAfterFlush(slab)
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    const able = this.#links.readers.find(link => link.canTellStatus)
    // A replica of upstream cannot tell. "May hold anything" is always a true answer.
    if (able === undefined) return [{offset, length, allocated: true}]
    return askBlockStatus(able, offset, Math.min(length, MAX_FRAME_RANGE))
  }

  replied(link: ReplicaLink, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    if (io.op === OP.READ) this.#reads.replied(link, io, error, text, slab, start, length)
    else if (io.op === OP.DIRECT) (io as DirectIo).onAnswer(error, text, slab, start, length)
    else this.#writes.replied(link, io, error, text)
  }

  lost(link: ReplicaLink, reason: Error, unanswered: readonly Io[]): void {
    this.#links.fail(link, reason)
    for (const io of unanswered) {
      if (io.op === OP.READ) this.#reads.readElsewhere(link, io)
      else if (io instanceof DirectIo) io.onLost(reason)
      else this.#writes.lost(io, reason)
    }
  }

  /** The members are recorded. With nothing left to read they are not, and nothing is acknowledged; see MemberLog.record(). */
  #acknowledge(done: readonly Io[]): void {
    const error = this.#links.readers.length === 0 ? ERRNO.EIO : 0
    for (const io of done) this.#requests.done(io, error)
  }
}
