import {networkInterfaces} from 'node:os'
import {FrameClient, type FrameClientOwner} from '../protocol/frame-client.js'
import type {Io} from '../protocol/block-device.js'
import type {Slab} from '../lib/net/slab.js'
import {FEATURE} from '../protocol/frame.js'

/** RW: reads and writes. WO: takes writes while it is being rebuilt. ERR: out of use until it is removed. */
export type ReplicaMode = 'RW' | 'WO' | 'ERR'

/** Who owns the links: the volume. */
export interface LinkOwner {
  /** A request was answered; see FrameClientOwner.onReply. */
  replied(link: ReplicaLink, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void
  /** The connection ended; `unanswered` will get no reply from it. */
  lost(link: ReplicaLink, reason: Error, unanswered: readonly Io[]): void
}

/** A remote replica is asked for a read only when a local one has this much more to do. */
const REMOTE_PENALTY_BYTES = 1024 * 1024
/** What a small request costs compared with its bytes, when two replicas' loads are compared. */
const REQUEST_COST_BYTES = 16 * 1024

/** One replica as the engine sees it: its mode, what it can do, and the connection its data goes over. */
export class ReplicaLink implements FrameClientOwner {
  mode: ReplicaMode = 'RW'
  /** It has everything that is acknowledged, and is recorded as having it. */
  member = false
  /** What it is recorded as: its id, or its address when it has none. */
  name: string
  /** Why it is ERR. */
  failure: Error | undefined
  /** In its own words, why it last refused a change. */
  refusal = ''
  readonly client: FrameClient
  readonly canFlush: boolean
  readonly canWriteDurably: boolean
  readonly canWriteZeroes: boolean
  readonly canTellStatus: boolean
  readonly canWriteAtomically: boolean
  readonly canRecordMembers: boolean
  readonly canRebuild: boolean
  readonly canRepair: boolean
  readonly #whenDropped = new Set<(reason: Error) => void>()
  readonly #owner: LinkOwner
  readonly #penalty: number

  constructor(
    /** `tcp://host:port` of its control service: its name towards people and other programs. */
    readonly address: string,
    /** One bit, its own among the links of a volume. */
    readonly bit: number,
    readonly features: readonly string[],
    connection: {readonly fd: number; readonly host: string; readonly timeoutMs: number},
    owner: LinkOwner,
  ) {
    this.canFlush = features.includes(FEATURE.FLUSH)
    this.canWriteDurably = features.includes(FEATURE.FUA)
    this.canWriteZeroes = features.includes(FEATURE.WRITE_ZEROES)
    this.canWriteAtomically = features.includes(FEATURE.WRITE_ATOMIC)
    this.canRecordMembers = features.includes(FEATURE.MEMBERS)
    this.canRebuild = features.includes(FEATURE.REBUILD)
    this.canRepair = features.includes(FEATURE.REPAIR)
    this.canTellStatus = features.includes(FEATURE.BLOCK_STATUS)
    this.name = address
    this.#owner = owner
    this.#penalty = isLocalHost(connection.host) ? 0 : REMOTE_PENALTY_BYTES
    this.client = new FrameClient(connection.fd, this, `replica ${address}`, connection.timeoutMs)
  }

  /** Takes it out of use. */
  drop(reason: Error): void {
    this.mode = 'ERR'
    this.failure = reason
    for (const tell of this.#whenDropped) tell(reason)
  }

  /** What comes of something that its control service was asked for; rejects as soon as it is dropped, as nobody may answer then. */
  async unlessDropped<T>(work: Promise<T>): Promise<T> {
    let tell: (reason: Error) => void = () => undefined
    const dropped = new Promise<never>((_, reject) => (tell = reject))
    this.#whenDropped.add(tell)
    if (this.failure !== undefined) tell(this.failure)
    try {
      return await Promise.race([dropped, work])
    } finally {
      this.#whenDropped.delete(tell)
    }
  }

  /** How long a read would have to wait here, compared with other replicas; smaller is better. */
  get load(): number {
    return this.client.bytesInFlight + this.client.inFlight * REQUEST_COST_BYTES + this.#penalty
  }

  onReply(_client: FrameClient, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    this.#owner.replied(this, io, error, text, slab, start, length)
  }

  onLost(_client: FrameClient, reason: Error, unanswered: Io[]): void {
    this.#owner.lost(this, reason, unanswered)
  }
}

/** True for loopback names and addresses and for those of this machine. */
export function isLocalHost(host: string): boolean {
  if (host === '' || host === 'localhost' || host === '::1' || host.startsWith('127.')) return true
  return Object.values(networkInterfaces()).some(list => list?.some(entry => entry.address === host) === true)
}
