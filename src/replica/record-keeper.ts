import {isKind} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {checkMembership, newReplicaId, readRecord, removeRecord, writeRecord, type Membership, type ReplicaRecord} from './membership.js'

/** The record of one replica directory, read once and kept up. */
export class RecordKeeper {
  #record: (ReplicaRecord & {readonly sequence: number}) | undefined
  #writing: Promise<unknown> = Promise.resolve()

  constructor(
    readonly directory: string,
    readonly log: Log,
  ) {}

  /**
   * Reads the record. `sealed`: see ReplicaDirectory; a record from before somebody else changed the replica says nothing any more.
   * CORRUPT when it cannot be read.
   */
  async load(sealed: boolean): Promise<void> {
    const found = await readRecord(this.directory)
    this.#record = sealed ? found : undefined
    if (found !== undefined && !sealed) this.log.warn('another program has changed this replica: what was recorded of its volume does not count any more')
  }

  get record(): ReplicaRecord | undefined {
    return this.#record
  }

  /** Resolves when what is being recorded is there. */
  async written(): Promise<void> {
    await this.#writing
  }

  /** To be called before volume.meta is written: makes sure that there is an id, and no record that does not count. */
  async settle(): Promise<void> {
    if (this.#record !== undefined) return
    await removeRecord(this.directory)
    const record = {id: newReplicaId(), membership: undefined, sequence: 1}
    try {
      await writeRecord(this.directory, record)
    } catch (error) {
      // A full disk must not keep anyone from opening the replica. Members cannot be recorded until there is space.
      if (!isKind(error, 'NO_SPACE')) throw error
      this.log.warn({reason: error.message}, 'this replica cannot record its members')
    }
    this.#record = record
  }

  /** Forgets the members durably: the replica's data is given up, whatever generation it had. */
  async forget(): Promise<void> {
    await this.settle()
    const {id, sequence} = this.#record!
    const record = {id, membership: undefined, sequence: sequence + 1}
    await writeRecord(this.directory, record)
    this.#record = record
  }

  /** Records the members durably. An older generation than the one that is there is success and changes nothing. USAGE, NO_SPACE, IO. */
  set(membership: Membership): Promise<void> {
    checkMembership(membership)
    const written = this.#writing.then(async () => {
      const before = this.#record
      if (before?.membership !== undefined && before.membership.generation >= membership.generation) return
      const record = {id: before?.id ?? newReplicaId(), membership, sequence: (before?.sequence ?? 0) + 1}
      await writeRecord(this.directory, record)
      this.#record = record
    })
    this.#writing = written.catch(() => undefined)
    return written
  }
}
