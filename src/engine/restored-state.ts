// What the replicas of a volume say of backups in them, and whether the volume is whole. Pure.
import {LonghornError} from '../lib/errors.js'
import type {ReplicaFacts} from './replica-control.js'
import type {RestoreBase} from './restore.js'

/** One replica that is in use. */
export interface RestoredState extends Pick<ReplicaFacts, 'restored' | 'unwrittenLayers' | 'holdsData'> {
  readonly address: string
}

export interface Verdict {
  /** Replicas that have not got what others have; by address, with the reason. */
  readonly behind: ReadonlyMap<string, LonghornError>
  /** Why the volume must not be used; undefined when it may, without those that are behind. */
  readonly unusable: LonghornError | undefined
}

const WAY_OUT = 'restore again (longhorn backup restore), or give it up (longhorn backup restore-cancel)'

/**
 * Whether the volume may be served. A backup that was begun is in its place on all replicas, on some, or on none: on all it is over; those that lack what others
 * have are behind; on none the volume is what it was before, which is whole only if that was a backup, too.
 */
export function judge(states: readonly RestoredState[]): Verdict {
  const verdict = (unusable?: LonghornError, behind: ReadonlyMap<string, LonghornError> = new Map()): Verdict => ({unusable, behind})
  const running = states.find(({restored}) => restored?.running === true)
  if (running !== undefined) return verdict(new LonghornError('BUSY', `a backup is being restored into the volume, on replica ${running.address}: wait; if it was asked for through an engine that is gone, ${WAY_OUT}`))
  const begun = states.filter(({restored}) => (restored?.begun ?? '') !== '')
  const there = states.filter(state => !begun.includes(state) && begun.some(({restored}) => restored!.begun === state.restored?.backup))
  const [first] = there
  if (first !== undefined) {
    const {backup, layer} = first.restored!
    const behind = states.filter(({restored}) => restored?.backup !== backup || restored.layer !== layer)
    return verdict(undefined, new Map(behind.map(({address}) => [address, new LonghornError('IO', `replica ${address} has not got backup ${backup}, which others have`)])))
  }
  const incomplete = begun.find(({restored}) => restored!.backup === '')
  if (incomplete !== undefined) return verdict(new LonghornError('CONFLICT', `the restore of ${incomplete.restored!.begun} was not finished, so the volume is not complete: ${WAY_OUT}`))
  const held = states.find(({restored, unwrittenLayers}) => (restored?.backup ?? '') !== '' && unwrittenLayers.includes(restored!.layer))
  const other = held && states.find(({unwrittenLayers}) => !unwrittenLayers.includes(held.restored!.layer))
  if (other !== undefined) {
    return verdict(new LonghornError('CONFLICT', `replica ${held!.address} holds backup ${held!.restored!.backup} and replica ${other.address} does not: ${WAY_OUT}, or remove one of the replicas`))
  }
  return verdict()
}

/** The backup that all replicas hold, with nothing written since; undefined when there is none. */
export function commonBase(states: readonly RestoredState[]): RestoreBase | undefined {
  for (const {restored} of states) {
    if (restored === undefined || restored.backup === '') continue
    const {backup, layer} = restored
    if (states.every(({unwrittenLayers}) => unwrittenLayers.includes(layer))) return {backup, layer}
  }
  return undefined
}
