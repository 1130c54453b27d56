// Which of the replicas that an engine was given it may use. Pure: decides from what they said of themselves.
import {LonghornError} from '../lib/errors.js'
import {formatSize} from '../lib/sizes.js'
import type {ReplicaFacts} from './replica-control.js'

/** A replica that was asked: its facts, or why there are none. */
export interface Candidate {
  readonly address: string
  readonly answer: ReplicaFacts | Error
}

export interface Choice {
  readonly sizeBytes: number
  readonly usable: readonly string[]
  readonly rejected: ReadonlyMap<string, LonghornError>
}

/** States in which a replica of ours may be taken over from an engine that is gone; a newer session fences the older. */
const RUNNING = new Set(['open', 'dirty'])

/**
 * Decides the volume's size and who takes part. `sizeBytes` is what the volume should have; `currentSizeBytes`, when
 * given, is what it had when replicas disagree because an expansion was cut short (upstream's --current-size).
 * Throws CONFLICT when sizes do not fit together, NO_DATA when replicas answered and none can be used, and the reason
 * (UNREACHABLE, …) of the first when none could be asked.
 */
export function chooseReplicas(candidates: readonly Candidate[], sizeBytes: number, currentSizeBytes?: number): Choice {
  const rejected = new Map<string, LonghornError>()
  const answered = new Map<string, ReplicaFacts>()
  for (const {address, answer} of candidates) {
    const reason = answer instanceof Error ? asReason(address, answer) : unusable(address, answer, candidates.length)
    if (reason !== undefined) rejected.set(address, reason)
    else if (!(answer instanceof Error)) answered.set(address, answer)
  }
  if (answered.size === 0) throw noneLeft(candidates, rejected)
  const size = volumeSize(answered, sizeBytes, currentSizeBytes)
  const newest = newestCounter(answered)
  for (const [address, facts] of answered) {
    const reason = facts.sizeBytes === size ? staleness(address, facts, newest) : wrongSize(address, facts.sizeBytes, size)
    if (reason === undefined) continue
    rejected.set(address, reason)
    answered.delete(address)
  }
  if (answered.size === 0) throw noneLeft(candidates, rejected)
  return {sizeBytes: size, usable: [...answered.keys()], rejected}
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

function volumeSize(answered: ReadonlyMap<string, ReplicaFacts>, sizeBytes: number, currentSizeBytes: number | undefined): number {
  const sizes = new Set([...answered.values()].map(facts => facts.sizeBytes))
  if (sizes.size === 1 && sizes.has(sizeBytes)) return sizeBytes
  if (currentSizeBytes !== undefined) return currentSizeBytes
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

function noneLeft(candidates: readonly Candidate[], rejected: ReadonlyMap<string, LonghornError>): LonghornError {
  const reasons = [...rejected.values()]
  const [first] = reasons
  if (candidates.length === 1 && first !== undefined) return first
  const answered = candidates.some(({answer}) => !(answer instanceof Error))
  const text = `no replica can be used: ${reasons.map(reason => reason.message).join('; ')}`
  return new LonghornError(answered ? 'NO_DATA' : 'UNREACHABLE', text)
}
