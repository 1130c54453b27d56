import {LonghornError, messageOf} from '../lib/errors.js'
import type {RepeatLog} from '../lib/repeat-log.js'
import {reactor} from '../lib/net/reactor.js'
import {Slab, SlabPool} from '../lib/net/slab.js'
import {MAX_IO_BYTES, type Io} from '../protocol/block-device.js'
import {FRAME, REPAIR_ANSWER_BYTES} from '../protocol/frame.js'
import type {HeldChange} from './change-gate.js'
import {DirectIo} from './direct-io.js'
import type {ReplicaLink} from './replica-link.js'
import type {VolumeLinks} from './volume-links.js'
import type {VolumeRequests} from './volume-requests.js'

const BLOCK_BYTES = 4096
/** Repairs at a time: writers wait for them. */
const MOST_RUNNING = 4
/** More than this wait for the next read that fails there. */
const MOST_WAITING = 256
/** What lies in a snapshot is left to scrub for this long, however often it is read: a repair keeps writers waiting, and would change nothing. */
const LEFT_TO_SCRUB_MS = 10_000
const MOST_LEFT = 256

/** What a repair needs of its volume. */
export interface RepairHost {
  readonly links: VolumeLinks
  readonly requests: VolumeRequests
  readonly sizeBytes: () => number
  /** Starts a change that has waited for a range. */
  readonly start: (change: HeldChange) => void
}

/** How the repairs of a volume went since its engine began. */
export interface RepairCounts {
  /** Ranges that were rewritten and can be read again. */
  repaired: number
  /** Ranges, or parts of ranges, that lie in a snapshot: scrub is asked to heal them. */
  frozen: number
  /** Ranges that could not be made good. */
  failed: number
}

interface Job {
  readonly link: ReplicaLink
  readonly offset: number
  readonly length: number
}

interface LeftToScrub extends Job {
  readonly sinceMs: number
}

/**
 * Makes good what one replica could not read and another could. Nobody changes the range while that is under way, so nothing newer can be lost:
 * its blocks are read anew from a replica that can, and given to the one that could not. What cannot be rewritten
 * either puts the replica out of use; a single bad read does not.
 */
export class ReadRepair {
  readonly counts: RepairCounts = {repaired: 0, frozen: 0, failed: 0}
  /** Told of a range that a replica cannot read and that lies, at least in part, in a snapshot. */
  onFrozen: (link: ReplicaLink, offset: number, length: number) => void = () => undefined
  readonly #host: RepairHost
  readonly #log: RepeatLog
  readonly #waiting: Job[] = []
  readonly #running = new Set<Job>()
  /** The oldest first. */
  #left: readonly LeftToScrub[] = []

  constructor(host: RepairHost, log: RepeatLog) {
    this.#host = host
    this.#log = log
  }

  /** To be told of a read that `failed` could not answer and another replica could. */
  wanted(io: Io, failed: readonly ReplicaLink[]): void {
    const offset = io.offset - (io.offset % BLOCK_BYTES)
    const end = Math.min(this.#host.sizeBytes(), Math.ceil((io.offset + io.length) / BLOCK_BYTES) * BLOCK_BYTES)
    for (const link of failed) {
      if (!link.canRepair || link.mode !== 'RW') continue
      const job = {link, offset, length: end - offset}
      if (this.#isKnown(job) || this.#waiting.length === MOST_WAITING) continue
      this.#waiting.push(job)
    }
    this.goOn()
  }

  /** Begins what waits and may begin. */
  goOn(): void {
    while (this.#waiting.length > 0 && this.#running.size < MOST_RUNNING && !this.#host.requests.standsStill) {
      const job = this.#waiting.shift()!
      this.#running.add(job)
      void this.#run(job).finally(() => {
        this.#running.delete(job)
        this.goOn()
      })
    }
  }

  /** Nothing is being repaired, and nothing waits for it. */
  get idle(): boolean {
    return this.#running.size === 0 && this.#waiting.length === 0
  }

  #isKnown({link, offset, length}: Job): boolean {
    const covers = (job: Job): boolean => job.link === link && job.offset <= offset && offset + length <= job.offset + job.length
    if (this.#left.length > 0) this.#left = this.#left.filter(({sinceMs}) => performance.now() - sinceMs < LEFT_TO_SCRUB_MS)
    return this.#left.some(covers) || this.#waiting.some(covers) || [...this.#running].some(covers)
  }

  async #run(job: Job): Promise<void> {
    const {link, offset, length} = job
    const {requests, start} = this.#host
    // Until left() a barrier waits for it.
    requests.entered()
    const release = await requests.changes.hold(offset, length)
    try {
      if (link.mode === 'RW') await this.#repair(job)
    } catch (error) {
      this.counts.failed++
      this.#log.error(link.address, {replica: link.address, offset, length, reason: messageOf(error)}, 'a range that could not be read was not repaired')
    } finally {
      for (const change of release()) start(change)
      requests.left()
    }
  }

  async #repair({link, offset, length}: Job): Promise<void> {
    let frozen = 0
    for (let done = 0; done < length; done += MAX_IO_BYTES) {
      const at = offset + done
      const good = await this.#read(link, at, Math.min(MAX_IO_BYTES, length - done))
      frozen += await this.#rewrite(link, at, good)
    }
    if (frozen < length) {
      this.counts.repaired++
      this.#log.warn(link.address, {replica: link.address, offset, length: length - frozen}, 'what could not be read was repaired')
    }
    if (frozen === 0) return
    this.counts.frozen++
    this.#log.warn(link.address, {replica: link.address, offset, length, frozen}, 'what could not be read lies in a snapshot')
    this.#left = [...this.#left.slice(1 - MOST_LEFT), {link, offset, length, sinceMs: performance.now()}]
    this.onFrozen(link, offset, length)
  }

  /** Of a replica that can read it. Throws IO when there is none. */
  async #read(bad: ReplicaLink, offset: number, length: number): Promise<Slab> {
    let reason = 'there is no other replica'
    for (const link of this.#host.links.readers) {
      if (link === bad) continue
      try {
        return await ask(link, FRAME.READ, offset, length, undefined, copyOut)
      } catch (error) {
        reason = messageOf(error)
      }
    }
    throw new LonghornError('IO', `no replica can read it: ${reason}`)
  }

  /** Resolves to the bytes that are in a frozen layer. Drops the replica when it fails. */
  async #rewrite(link: ReplicaLink, offset: number, good: Slab): Promise<number> {
    try {
      return await ask(link, FRAME.REPAIR, offset, good.size, good, leftOver)
    } catch (error) {
      this.#host.links.fail(link, new LonghornError('IO', `replica ${link.address}: a read at ${offset} failed, and so did rewriting it: ${messageOf(error)}`, {}, {cause: error}))
      throw error
    } finally {
      reactor.releaseAfterFlush(good)
    }
  }
}

type Decode<T> = (answer: {readonly link: ReplicaLink; readonly length: number; readonly slab: Slab; readonly start: number; readonly bytes: number}) => T

/** Sends one request to one replica. Throws IO, PROTOCOL, or the reason why the connection ended. */
function ask<T>(link: ReplicaLink, type: number, offset: number, length: number, data: Slab | undefined, decode: Decode<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    if (link.mode === 'ERR') {
      reject(link.failure ?? new LonghornError('IO', `replica ${link.address} is out of use`))
      return
    }
    const io = new Question(link, offset, length, (error, slab, start, bytes) => {
      if (error !== undefined) {
        reject(error)
        return
      }
      try {
        resolve(decode({link, length, slab: slab!, start, bytes}))
      } catch (wrong) {
        reject(wrong instanceof Error ? wrong : new Error('an answer could not be read', {cause: wrong}))
      }
    })
    if (data === undefined) link.client.request(type, io)
    else link.client.write(type, io, data, 0)
  })
}

class Question extends DirectIo {
  constructor(
    readonly link: ReplicaLink,
    offset: number,
    length: number,
    readonly answered: (error: Error | undefined, slab: Slab | undefined, start: number, bytes: number) => void,
  ) {
    super(offset, length)
  }

  override onAnswer(error: number, text: string, slab: Slab | undefined, start: number, bytes: number): void {
    this.answered(error === 0 ? undefined : new LonghornError('IO', `replica ${this.link.address}: ${text}`), slab, start, bytes)
  }

  override onLost(reason: Error): void {
    this.answered(reason, undefined, 0, 0)
  }
}

const copyOut: Decode<Slab> = ({link, length, slab, start, bytes}) => {
  if (bytes !== length) throw new LonghornError('PROTOCOL', `replica ${link.address}: answered ${bytes} bytes to a read of ${length}`)
  const copy = new Slab(length, new SlabPool(length, 0))
  copy.references = 1
  slab.buffer.copy(copy.buffer, 0, start, start + length)
  return copy
}

const leftOver: Decode<number> = ({link, length, slab, start, bytes}) => {
  const left = bytes === REPAIR_ANSWER_BYTES ? slab.buffer.readUInt32LE(start) : -1
  if (left < 0 || left > length) throw new LonghornError('PROTOCOL', `replica ${link.address}: an answer to a repair that makes no sense`)
  return left
}
