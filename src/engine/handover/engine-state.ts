// What an engine gives to the one that goes on in its place, in another process of this host: JSON, and the descriptors of its
// sockets. Nothing is in flight on any of them.
import {LonghornError} from '../../lib/errors.js'
import type {ChangedState} from '../changed-regions.js'
import type {Membership} from '../membership.js'
import {parseReplicaAddress} from '../replica-control.js'
import {ReplicaLink} from '../replica-link.js'
import type {Volume} from '../volume.js'
import type {VolumeSettings} from '../volume-settings.js'

/** Raised whenever an engine of before would misunderstand. */
export const STATE_VERSION = 1

export interface EngineState {
  readonly version: typeof STATE_VERSION
  readonly volume: string
  readonly sizeBytes: number
  /** In which it has its replicas open. */
  readonly session: string
  readonly membership: Membership | undefined
  readonly settings: VolumeSettings
  readonly changes: ChangedState
  readonly replicas: readonly ReplicaState[]
  readonly frontend: {readonly name: string; readonly state: unknown; /** The first of its descriptors; they are the last of all. */ readonly firstFd: number} | undefined
  /** When its initiators began to wait, on the monotonic clock of this host. Milliseconds. */
  readonly stoppedAt: number
}

export interface ReplicaState {
  readonly address: string
  /** Of one in use: its data connection is the descriptor of this index. */
  readonly link?: {readonly fd: number; readonly member: boolean; readonly name: string; readonly features: readonly string[]} | undefined
  /** Why it is not in use. */
  readonly reason?: string | undefined
}

/** CLOCK_MONOTONIC in milliseconds, the same in all processes of this host. */
export function hostClock(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000
}

/** Checks what came from another engine. Throws UNSUPPORTED when it is of another version, PROTOCOL when it cannot be. */
export function checkState(value: unknown, fds: number): EngineState {
  const state = value as EngineState
  if (typeof value !== 'object' || value === null || typeof state.version !== 'number') throw new LonghornError('PROTOCOL', 'the running engine hands over something that is not its state')
  if (state.version !== STATE_VERSION) {
    throw new LonghornError('UNSUPPORTED', `the running engine hands over in version ${state.version}, this one knows ${STATE_VERSION}: stop that one first, and start this without --upgrade`)
  }
  const used = state.replicas.flatMap(({link}) => (link === undefined ? [] : [link.fd]))
  const first = state.frontend?.firstFd ?? fds
  if (!Number.isSafeInteger(state.sizeBytes) || state.sizeBytes < 0 || typeof state.session !== 'string' || ![...used].sort((a, b) => a - b).every((fd, index) => fd === index) || used.length !== first || first > fds) {
    throw new LonghornError('PROTOCOL', `the running engine hands over a state that does not fit its ${fds} sockets`)
  }
  return state
}

/** The links to the replicas that are in use. */
export function linksOf(state: EngineState, fds: readonly number[], volume: Volume, timeoutMs: number): ReplicaLink[] {
  return state.replicas.flatMap(({address, link}, index) => {
    if (link === undefined) return []
    const {host} = parseReplicaAddress(address)
    const one = new ReplicaLink(address, 1 << index, link.features, {fd: fds[link.fd]!, host, timeoutMs}, volume)
    one.member = link.member
    one.name = link.name
    return [one]
  })
}
