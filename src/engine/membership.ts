import {randomBytes} from 'node:crypto'
import {LonghornError, messageOf, isKind} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {toSize} from '../protocol/grpc/fields.js'
import type {Membership as MembershipMessage} from '../protocol/proto/generated/replica.js'
import type {ReplicaControl} from './replica-control.js'
import type {ReplicaLink} from './replica-link.js'
import type {Volume} from './volume.js'

/** Who had every write that was acknowledged when it was recorded; see docs/format.md. */
export interface Membership {
  readonly generation: number
  readonly members: readonly string[]
  /** The first one is the volume's for good, then those of the last changes, the newest last. */
  readonly lineage: readonly string[]
}

/** How many changes are remembered: replicas that went apart longer ago are told apart by their generation only. */
const LINEAGE = 16

/** Checks a record from a replica. Throws PROTOCOL. */
export function toMembership({generation, members, lineage}: MembershipMessage, what: string): Membership {
  return {generation: toSize(generation, what, 'PROTOCOL'), members, lineage}
}

/** Records on the members of a volume who they are. One record after the other. */
export class MemberLog {
  #generation: number
  #lineage: readonly string[]
  #last: Membership | undefined
  #running: Promise<void> = Promise.resolve()

  /** `last`: the record with the highest generation that any replica has, also of those that are not used. */
  constructor(
    readonly volume: Volume,
    readonly session: string,
    readonly control: (link: ReplicaLink) => ReplicaControl,
    readonly log: Log,
    last: Membership | undefined,
  ) {
    this.#generation = last?.generation ?? 0
    this.#lineage = last?.lineage ?? [newName()]
  }

  /** What was recorded last, by this engine or the one before it. */
  get last(): Membership | undefined {
    return this.#last
  }

  /** Goes on in place of an engine that has recorded this. */
  goOn(last: Membership): void {
    this.#last = last
  }

  /** Throws CONFLICT when a replica's record is one of another volume. */
  checkSameVolume(address: string, record: Membership | undefined): void {
    if (record === undefined || record.lineage[0] === this.#lineage[0]) return
    throw new LonghornError('CONFLICT', `replica ${address} belongs to another volume: to give its data up, stop it, remove its directory and start it again`)
  }

  /** Tells a replica that has joined which volume it belongs to: should its rebuild be cut short, it is known whose it was. */
  async tell(control: ReplicaControl): Promise<void> {
    if (this.#last !== undefined) await control.setMembers(this.session, this.#last)
  }

  /**
   * Resolves when it is durable on every member that can record it. One on which it fails is dropped, and whoever waits for that
   * records again. When the disks of all of them are full nothing is recorded: better than no volume at all.
   */
  record(): Promise<void> {
    this.#running = this.#running.then(() => this.#record())
    return this.#running
  }

  async #record(): Promise<void> {
    const members = this.volume.members.filter(link => link.member)
    const able = this.volume.members.filter(link => link.canRecordMembers)
    // With nothing left to read no write is acknowledged, so nobody lacks one: those that were members still are. Recorded without them,
    // replicas that are not whole yet would be all there is.
    if (members.length === 0 || able.length === 0 || this.volume.readers.length === 0) return
    this.#generation += 1
    const [volume, ...changes] = this.#lineage as [string, ...string[]]
    this.#lineage = [volume, ...changes.slice(2 - LINEAGE), newName()]
    const membership = {generation: this.#generation, members: members.map(link => link.name), lineage: this.#lineage}
    this.#last = membership
    const results = await Promise.allSettled(able.map(link => link.unlessDropped(this.control(link).setMembers(this.session, membership))))
    const failed = able.flatMap((link, index) => {
      const result = results[index]!
      return result.status === 'rejected' ? [{link, reason: result.reason as Error}] : []
    })
    if (failed.length === able.length && failed.every(({reason}) => isKind(reason, 'NO_SPACE'))) {
      this.log.error({generation: this.#generation}, 'no replica has space to record the members: a replica that is stale may not be told from these')
      return
    }
    this.log.info({generation: this.#generation, members: membership.members}, 'members recorded')
    for (const {link, reason} of failed) this.volume.fail(link, new LonghornError('IO', `replica ${link.address}: recording the members: ${messageOf(reason)}`, {}, {cause: reason}))
  }
}

function newName(): string {
  return randomBytes(8).toString('hex')
}
