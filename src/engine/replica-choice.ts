// Which of the replicas that an engine was given it may use. Pure: decides from what they said of themselves.
import {LonghornError} from '../lib/errors.js'
import {formatSize} from '../lib/sizes.js'
import {FEATURE} from '../protocol/frame.js'
import type {Membership} from './membership.js'
import type {ReplicaFacts} from './replica-control.js'

/** A replica that was asked: its facts, or why there are none. */
export interface Candidate {
  readonly address: string
  readonly answer: ReplicaFacts | Error
}

export interface Choice {
  readonly sizeBytes: number
  /** Have everything, and can be read at once. Never empty. */
  readonly usable: readonly string[]
  /** Have everything that was flushed, and may differ from those in what was not: they were in use when everything stopped. */
  readonly resync: readonly string[]
  /** Lack something, each with what: they have to be rebuilt. */
  readonly rebuild: ReadonlyMap<string, LonghornError>
  readonly rejected: ReadonlyMap<string, LonghornError>
  /** The newest record of the members that any replica has. */
  readonly membership: Membership | undefined
}

export interface ChoiceOptions {
  /** What the volume should have, in bytes. */
  readonly sizeBytes: number
  /** What it had when replicas disagree because an expansion was cut short (upstream's --current-size). */
  readonly currentSizeBytes?: number | undefined
  /** Take the best of what answers, though something that was acknowledged is only on replicas that do not. */
  readonly salvage?: boolean | undefined
}

/** States in which a replica of ours may be taken over from an engine that is gone; a newer session fences the older. */
const RUNNING = new Set(['open', 'dirty'])

/** Some engine has it open and could go on using it. */
export function isInUse(answer: ReplicaFacts | Error): boolean {
  return !(answer instanceof Error) && RUNNING.has(answer.state) && answer.features.includes(FEATURE.HELLO)
}

/**
 * Decides the volume's size, who takes part at once, and who after it has been made the same as those.
 * Throws CONFLICT when sizes or histories do not fit together, NO_DATA when replicas answered and none can be used, and the reason
 * (UNREACHABLE, …) of the first when none could be asked.
 */
export function chooseReplicas(candidates: readonly Candidate[], options: ChoiceOptions): Choice {
  const rejected = new Map<string, LonghornError>()
  const rebuild = new Map<string, LonghornError>()
  const answered = new Map<string, ReplicaFacts>()
  checkIds(candidates)
  for (const {address, answer} of candidates) {
    const reason = answer instanceof Error ? asReason(address, answer) : unusable(address, answer, candidates.length)
    if (reason === undefined) answered.set(address, answer as ReplicaFacts)
    else if (!(answer instanceof Error) && mayBeRebuilt(answer)) rebuild.set(address, reason)
    else rejected.set(address, reason)
  }
  const membership = newestMembership(candidates)
  if (membership !== undefined) {
    for (const [address, reason] of notMembers(answered, membership, options.salvage === true)) moveOut(address, reason)
  }
  if (answered.size === 0 && options.salvage === true) salvage(candidates, answered, rebuild, rejected)
  if (answered.size === 0) throw noneLeft(candidates, new Map([...rebuild, ...rejected]), membership)
  const size = volumeSize(answered, options)
  const newest = membership === undefined ? newestCounter(answered) : undefined
  for (const [address, facts] of answered) {
    const reason = facts.sizeBytes === size ? staleness(address, facts, newest) : wrongSize(address, facts.sizeBytes, size)
    if (reason !== undefined) moveOut(address, reason)
  }
  if (answered.size === 0) throw noneLeft(candidates, new Map([...rebuild, ...rejected]), membership)
  const {usable, resync} = splitByCleanness(answered)
  return {sizeBytes: size, usable, resync, rebuild, rejected, membership}

  function moveOut(address: string, reason: LonghornError): void {
    const facts = answered.get(address)!
    answered.delete(address)
    if (mayBeRebuilt(facts)) rebuild.set(address, reason)
    else rejected.set(address, reason)
  }
}

/**
 * Made by this program, not in a state that somebody has to look at, and of this volume by its own record. Another one may be somebody
 * else's, given by mistake: it is taken in when it is added.
 */
function mayBeRebuilt({features, state, membership}: ReplicaFacts): boolean {
  return features.includes(FEATURE.REBUILD) && state !== 'error' && state !== 'initial' && membership !== undefined
}

function checkIds(candidates: readonly Candidate[]): void {
  const seen = new Map<string, string>()
  for (const {address, answer} of candidates) {
    if (answer instanceof Error || answer.id === '') continue
    const twin = seen.get(answer.id)
    if (twin !== undefined) {
      throw new LonghornError('CONFLICT', `replicas ${twin} and ${address} are one replica, or one is a copy of the other: a copied directory needs its file "membership" removed`)
    }
    seen.set(answer.id, address)
  }
}

/** Also of replicas that cannot be used: what they have is the newest all the same. */
function newestMembership(candidates: readonly Candidate[]): Membership | undefined {
  let newest: Membership | undefined
  for (const {answer} of candidates) {
    if (answer instanceof Error || answer.membership === undefined) continue
    if (newest !== undefined && newest.lineage[0] !== answer.membership.lineage[0]) {
      throw new LonghornError('CONFLICT', 'the replicas belong to different volumes: ' + candidates.flatMap(one => volumeOf(one) ?? []).join(', '))
    }
    if (newest === undefined || answer.membership.generation > newest.generation) newest = answer.membership
  }
  return newest
}

function volumeOf({address, answer}: Candidate): string | undefined {
  if (answer instanceof Error || answer.membership === undefined) return undefined
  return `${address} to ${answer.membership.lineage[0]}`
}

/** Who lacks something according to the newest record. CONFLICT when replicas went separate ways, unless `salvage`. */
function notMembers(answered: ReadonlyMap<string, ReplicaFacts>, newest: Membership, salvage: boolean): Map<string, LonghornError> {
  const out = new Map<string, LonghornError>()
  for (const [address, facts] of answered) {
    const own = facts.membership
    if (own !== undefined && wentAnotherWay(own, newest)) {
      const text = `replica ${address} (generation ${own.generation}) and others (generation ${newest.generation}) were used apart from each other`
      if (!salvage) throw new LonghornError('CONFLICT', `${text}: start the engine without those whose data is to be given up, or with --salvage to keep the highest generation`)
      out.set(address, new LonghornError('CONFLICT', text))
    } else if (!newest.members.includes(facts.id === '' ? address : facts.id)) {
      const why = own === undefined ? 'it has never been a member of this volume; add it with "longhorn replica add"' : `it has generation ${own.generation} of ${newest.generation} and was dropped since`
      out.set(address, new LonghornError('CONFLICT', `replica ${address} lacks data: ${why}`))
    }
  }
  return out
}

/** The last change that a replica knows is not one that the newest record grew from. */
function wentAnotherWay(own: Membership, newest: Membership): boolean {
  const last = own.lineage.at(-1)
  if (last === undefined || newest.lineage.includes(last)) return false
  // Older than what is remembered.
  return own.generation > newest.generation - newest.lineage.length
}

/** Nobody has everything: takes the highest generation of what there is. */
function salvage(candidates: readonly Candidate[], answered: Map<string, ReplicaFacts>, rebuild: Map<string, LonghornError>, rejected: Map<string, LonghornError>): void {
  const complete = candidates.filter(({answer}) => !(answer instanceof Error) && answer.state !== 'error' && answer.state !== 'initial' && !answer.rebuilding && answer.state !== 'rebuilding')
  const best = complete.sort((a, b) => generationOf(b) - generationOf(a)).at(0)
  if (best === undefined) return
  answered.set(best.address, best.answer as ReplicaFacts)
  rebuild.delete(best.address)
  rejected.delete(best.address)
}

function generationOf({answer}: Candidate): number {
  return answer instanceof Error ? -1 : (answer.membership?.generation ?? 0)
}

/** Those that were closed cleanly are the same. Of others one is taken for the truth; the rest may differ from it in what was in flight. */
function splitByCleanness(answered: ReadonlyMap<string, ReplicaFacts>): {usable: string[]; resync: string[]} {
  const usable: string[] = []
  const inUse: {address: string; facts: ReplicaFacts}[] = []
  for (const [address, facts] of answered) {
    const clean = facts.state === 'open' || (facts.state === 'closed' && !facts.dirty)
    if (clean) usable.push(address)
    else inUse.push({address, facts})
  }
  // A process that has lived on has everything that it answered, one that has not may have lost what was not flushed.
  inUse.sort((a, b) => Number(a.facts.state === 'closed') - Number(b.facts.state === 'closed'))
  const resync: string[] = []
  for (const {address, facts} of inUse) {
    if (usable.length === 0 || !facts.features.includes(FEATURE.REBUILD)) usable.push(address)
    else resync.push(address)
  }
  return {usable, resync}
}

function asReason(address: string, error: Error): LonghornError {
  return error instanceof LonghornError ? error : new LonghornError('IO', `replica ${address}: ${error.message}`, {}, {cause: error})
}

function unusable(address: string, facts: ReplicaFacts, candidates: number): LonghornError | undefined {
  const ours = facts.features.length > 0
  if (facts.state === 'error') {
    return new LonghornError('CORRUPT', `replica ${address} cannot be used: its files are damaged, or it has recorded an error; its log says which`)
  }
  if (facts.state === 'initial') {
    return new LonghornError('NOT_FOUND', `replica ${address} has no files yet: start it with --size to create them`)
  }
  if (facts.state !== 'closed' && !(ours && RUNNING.has(facts.state))) {
    const hint = RUNNING.has(facts.state) ? 'it is in use by another engine; restart it if that engine is gone' : 'it must be closed'
    return new LonghornError('BUSY', `replica ${address} is ${facts.state}: ${hint}`)
  }
  // A replica that was being rebuilt when everything stopped is all there is, or it is nothing.
  if (facts.rebuilding && candidates > 1) {
    return new LonghornError('CONFLICT', `replica ${address} was being rebuilt and is not complete`)
  }
  if (facts.sectorSize !== 512) {
    return new LonghornError('UNSUPPORTED', `replica ${address} has sectors of ${facts.sectorSize} bytes; only 512 is supported`)
  }
  return undefined
}

function volumeSize(answered: ReadonlyMap<string, ReplicaFacts>, {sizeBytes, currentSizeBytes}: ChoiceOptions): number {
  const sizes = new Set([...answered.values()].map(facts => facts.sizeBytes))
  if (sizes.size === 1 && sizes.has(sizeBytes)) return sizeBytes
  if (currentSizeBytes !== undefined) return currentSizeBytes
  // An expansion was cut short. What it asked for some have already, and the others get it from them.
  const others = [...answered.values()].filter(facts => facts.sizeBytes !== sizeBytes)
  if (sizes.has(sizeBytes) && others.every(facts => facts.sizeBytes < sizeBytes && mayBeRebuilt(facts))) return sizeBytes
  const found = [...answered].map(([address, facts]) => `${address} has ${formatSize(facts.sizeBytes)} (${facts.sizeBytes} bytes)`).join(', ')
  if (sizes.size > 1) throw new LonghornError('CONFLICT', `the replicas are of different sizes: ${found}; leave out those that are wrong`)
  throw new LonghornError('CONFLICT', `the volume's size is given as ${formatSize(sizeBytes)} (${sizeBytes} bytes), but ${found}`)
}

/** The largest revision counter if all count: those behind it have missed writes. */
function newestCounter(answered: ReadonlyMap<string, ReplicaFacts>): bigint | undefined {
  let newest: bigint | undefined
  for (const {revisionCounter} of answered.values()) {
    if (revisionCounter === undefined) return undefined
    if (newest === undefined || revisionCounter > newest) newest = revisionCounter
  }
  return newest
}

function staleness(address: string, facts: ReplicaFacts, newest: bigint | undefined): LonghornError | undefined {
  if (newest === undefined || facts.revisionCounter === newest) return undefined
  return new LonghornError('CONFLICT', `replica ${address} is behind: revision ${facts.revisionCounter} of ${newest}`)
}

function wrongSize(address: string, has: number, volume: number): LonghornError {
  return new LonghornError('CONFLICT', `replica ${address} is of ${formatSize(has)} (${has} bytes), the volume of ${formatSize(volume)} (${volume} bytes)`)
}

function noneLeft(candidates: readonly Candidate[], rejected: ReadonlyMap<string, LonghornError>, membership: Membership | undefined): LonghornError {
  const reasons = [...rejected.values()]
  const [first] = reasons
  const answered = candidates.some(({answer}) => !(answer instanceof Error))
  // Upstream's manager looks for the exit code of NO_DATA when replicas answer and none can be used, be it one or many.
  if (candidates.length === 1 && first !== undefined) return answered ? new LonghornError('NO_DATA', first.message, {}, {cause: first}) : first
  const hint = membership === undefined ? '' : `; the data of generation ${membership.generation} is on other replicas: give those, or --salvage to go on with less`
  const text = `no replica can be used: ${reasons.map(reason => reason.message).join('; ')}${hint}`
  return new LonghornError(answered ? 'NO_DATA' : 'UNREACHABLE', text)
}
