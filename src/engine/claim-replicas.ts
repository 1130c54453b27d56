// The replicas that an engine starts with: which of those it was given, and taken from the engine that has them.
import {formatAddress} from '../lib/address.js'
import {LonghornError, messageOf} from '../lib/errors.js'
import {chooseReplicas, isInUse, type Candidate, type Choice, type ChoiceOptions} from './replica-choice.js'
import {parseReplicaAddress, type ReplicaControl} from './replica-control.js'
import {MOST_REPLICAS} from './volume-links.js'

/** The addresses, each in the one way to write it. Throws USAGE when there are none, too many, or one is given twice. */
export function checkReplicaList(texts: readonly string[]): string[] {
  if (texts.length === 0) throw new LonghornError('USAGE', 'an engine needs at least one --replica')
  if (texts.length > MOST_REPLICAS) throw new LonghornError('USAGE', `a volume cannot have more than ${MOST_REPLICAS} replicas`)
  const addresses = texts.map(text => formatAddress(parseReplicaAddress(text)))
  const twice = addresses.find((address, index) => addresses.indexOf(address) !== index)
  if (twice !== undefined) throw new LonghornError('USAGE', `replica ${twice} is given twice`)
  return addresses
}

/**
 * Chooses among the replicas, and takes those that are in use from the engine that has them. That engine may be alive: as long as one
 * replica is left to it, it goes on, records there that the others are out, and acknowledges writes that only this one has. So what
 * they say of themselves counts when none of those that are to be used is its any more. Throws as chooseReplicas() does, and `signal`'s reason.
 */
export async function claimReplicas(controls: readonly ReplicaControl[], session: string, options: ChoiceOptions, signal: AbortSignal | undefined): Promise<Choice> {
  const taken = new Set<string>()
  for (;;) {
    const candidates = await Promise.all(controls.map(control => ask(control, signal)))
    signal?.throwIfAborted()
    const choice = chooseReplicas(candidates, options)
    const complete = new Set([...choice.usable, ...choice.resync])
    const inUse = candidates.filter(({address, answer}) => complete.has(address) && !taken.has(address) && isInUse(answer))
    if (inUse.length === 0) return choice
    for (const {address} of inUse) taken.add(address)
    // All at once, to leave the other engine no time to go on with some. One that cannot be taken is not to be had later either.
    await Promise.allSettled(controls.filter(({address}) => inUse.some(one => one.address === address)).map(control => control.open(session)))
  }
}

async function ask(control: ReplicaControl, signal: AbortSignal | undefined): Promise<Candidate> {
  try {
    return {address: control.address, answer: await control.inspect(signal)}
  } catch (error) {
    return {address: control.address, answer: error as Error}
  }
}

/** NO_DATA, with why each of the `rejected` cannot be used. */
export function tooFew(wanted: number, have: number, rejected: ReadonlyMap<string, LonghornError>): LonghornError {
  const reasons = [...rejected.values()]
  const text = `${have} of at least ${wanted} replicas can be used: ${reasons.map(messageOf).join('; ')}`
  const [first] = reasons
  return new LonghornError('NO_DATA', text, {}, first === undefined ? undefined : {cause: first})
}
