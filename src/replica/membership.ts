import {createHash, randomUUID} from 'node:crypto'
import {constants} from 'node:fs'
import {open, rm} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../lib/errors.js'
import {ioFailure} from './io-failure.js'
import {realDisk, type DiskSteps} from './disk-steps.js'

/** The file of the record; ours, upstream does not look at it. */
export const MEMBERSHIP_FILE = 'membership'

/** Two slots, written in turn and in place: one is always whole, and a full disk is no reason to be without. Bytes. */
const SLOT_BYTES = 4096
/** More names than this do not fit. */
const MOST_NAMES = 32
const NAME = /^[\x21-\x7e]{1,64}$/

/**
 * Who had every write that was acknowledged when the engine recorded this. A replica that is not among the members of the
 * highest generation has missed something.
 */
export interface Membership {
  /** Grows with every change of the members. */
  readonly generation: number
  /** The replicas, each by its id. */
  readonly members: readonly string[]
  /** A random name for each of the last changes, the newest last: who has another one at the same generation went another way. */
  readonly lineage: readonly string[]
}

/** What a replica knows of itself. */
export interface ReplicaRecord {
  /** Of this copy of the volume, as long as the directory lives. */
  readonly id: string
  readonly membership: Membership | undefined
}

/**
 * Reads the record of a replica; undefined when there is none. The newer of the two slots that are whole counts.
 *
 * A slot is `SHA-256 in hex`, a space, JSON of `{Sequence, Id, Generation, Members, Lineage}`, spaces up to 4095 bytes, a newline.
 * CORRUPT when there is a file and nothing in it is whole.
 */
export async function readRecord(directory: string): Promise<(ReplicaRecord & {readonly sequence: number}) | undefined> {
  const path = join(directory, MEMBERSHIP_FILE)
  const content = Buffer.alloc(2 * SLOT_BYTES)
  let bytes = 0
  try {
    await using file = await open(path, 'r')
    ;({bytesRead: bytes} = await file.read(content, 0, content.length, 0))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw ioFailure(`reading ${path}`, error)
  }
  const slots = [0, 1].flatMap(slot => parseSlot(content.toString('latin1', slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES)) ?? [])
  const newest = slots.sort((a, b) => b.sequence - a.sequence)[0]
  // Made and never filled: the process ended in between.
  if (newest === undefined && content.subarray(0, bytes).every(byte => byte === 0)) return undefined
  if (newest === undefined) throw new LonghornError('CORRUPT', `${path} cannot be read: rebuild this replica from another one`, {path})
  return newest
}

/** Records it durably. Throws NO_SPACE, IO. */
export async function writeRecord(directory: string, record: ReplicaRecord & {readonly sequence: number}, disk: DiskSteps = realDisk): Promise<void> {
  const path = join(directory, MEMBERSHIP_FILE)
  try {
    const created = await createIfMissing(path)
    await using file = await open(path, 'r+')
    const text = formatSlot(record)
    // Both slots of a new file, so that later ones find their space taken.
    if (created) await file.write(text, 0, SLOT_BYTES, SLOT_BYTES)
    await file.write(text, 0, SLOT_BYTES, (record.sequence % 2) * SLOT_BYTES)
    await file.datasync()
    if (created) await disk.syncDirectory(directory)
  } catch (error) {
    throw ioFailure(`writing ${path}`, error)
  }
}

/** Forgets the record: somebody else has changed the replica since. */
export async function removeRecord(directory: string, disk: DiskSteps = realDisk): Promise<void> {
  await rm(join(directory, MEMBERSHIP_FILE), {force: true})
  await disk.syncDirectory(directory)
}

/** An id for a replica that has none. */
export function newReplicaId(): string {
  return randomUUID()
}

/** Checks a record from outside. Throws USAGE. */
export function checkMembership({generation, members, lineage}: Membership): void {
  const wrong = (what: string): LonghornError => new LonghornError('USAGE', `the record of the members has ${what}`)
  if (!Number.isSafeInteger(generation) || generation < 1) throw wrong(`generation ${generation}: expected 1 or more`)
  if (members.length === 0 || members.length > MOST_NAMES) throw wrong(`${members.length} members: expected 1 to ${MOST_NAMES}`)
  if (lineage.length === 0 || lineage.length > MOST_NAMES) throw wrong(`a lineage of ${lineage.length}: expected 1 to ${MOST_NAMES}`)
  for (const name of [...members, ...lineage]) if (!NAME.test(name)) throw wrong(`a name that is not 1 to 64 printable characters`)
}

async function createIfMissing(path: string): Promise<boolean> {
  try {
    await using file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
    await file.write(Buffer.alloc(2 * SLOT_BYTES))
    return true
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false
    throw error
  }
}

function formatSlot({sequence, id, membership}: ReplicaRecord & {readonly sequence: number}): Buffer {
  const fields = {Sequence: sequence, Id: id, Generation: membership?.generation ?? 0, Members: membership?.members ?? [], Lineage: membership?.lineage ?? []}
  const json = JSON.stringify(fields).padEnd(SLOT_BYTES - 66)
  if (json.length > SLOT_BYTES - 66) throw new Error('a record of members that does not fit')
  return Buffer.from(`${digest(json)} ${json}\n`, 'latin1')
}

function parseSlot(text: string): (ReplicaRecord & {readonly sequence: number}) | undefined {
  const json = text.slice(65, -1)
  if (text.length < 66 || text.slice(0, 64) !== digest(json)) return undefined
  const {Sequence, Id, Generation, Members, Lineage} = JSON.parse(json) as {Sequence: number; Id: string; Generation: number; Members: string[]; Lineage: string[]}
  const membership = Generation === 0 ? undefined : {generation: Generation, members: Members, lineage: Lineage}
  return {sequence: Sequence, id: Id, membership}
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
