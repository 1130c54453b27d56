import {LonghornError} from '../lib/errors.js'
import {reactor} from '../lib/net/reactor.js'
import type {Slab} from '../lib/net/slab.js'
import type {RepeatLog} from '../lib/repeat-log.js'
import {ERRNO, type Io} from '../protocol/block-device.js'
import {FRAME} from '../protocol/frame.js'
import type {ReadRepair} from './read-repair.js'
import type {ReplicaLink} from './replica-link.js'
import type {VolumeLinks} from './volume-links.js'
import type {VolumeRequests} from './volume-requests.js'

export interface ReadPathOptions {
  readonly links: VolumeLinks
  readonly requests: VolumeRequests
  /** Told of what one replica could not read and another could. */
  readonly repairs: ReadRepair
  readonly repeats: RepeatLog
}

/** Reads of a volume: each goes to the RW replica that has the least to do, and to the next one when that cannot read it. */
export class ReadPath {
  readonly #links: VolumeLinks
  readonly #requests: VolumeRequests
  readonly #repairs: ReadRepair
  readonly #repeats: RepeatLog

  constructor({links, requests, repairs, repeats}: ReadPathOptions) {
    this.#links = links
    this.#requests = requests
    this.#repairs = repairs
    this.#repeats = repeats
  }

  /** Asks one of the replicas that have not failed it yet; ends it when there is none. */
  read(io: Io): void {
    let best: ReplicaLink | undefined
    let bestLoad = Infinity
    for (const link of this.#links.readers) {
      if ((io.failed & link.bit) !== 0) continue
      const load = link.load
      if (load < bestLoad) {
        best = link
        bestLoad = load
      }
    }
    if (best === undefined) this.#requests.done(io, io.error === 0 ? ERRNO.EIO : io.error)
    else best.client.request(FRAME.READ, io)
  }

  /** A replica has answered; see LinkOwner.replied(). */
  replied(link: ReplicaLink, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    if (error === 0 && length !== io.length) {
      this.#links.fail(link, new LonghornError('PROTOCOL', `replica ${link.address}: answered ${length} bytes to a read of ${io.length}`))
      error = ERRNO.EIO
    }
    if (error === 0) {
      const {failed} = io
      if (failed !== 0) this.#repairs.wanted(io, this.#links.readers.filter(({bit}) => (failed & bit) !== 0))
      io.onData(slab!, start)
      this.#requests.done(io, 0)
      return
    }
    this.#repeats.warn(link.address, {replica: link.address, offset: io.offset, length: io.length, error: text}, 'read failed on a replica')
    io.error = error
    this.readElsewhere(link, io)
  }

  /** `failed` could not: another one is asked. That has all its time: it is not to blame for what the one before it took. */
  readElsewhere(failed: ReplicaLink, io: Io): void {
    io.failed |= failed.bit
    io.startedAt = reactor.time()
    this.read(io)
  }
}
