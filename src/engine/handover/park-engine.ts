import {LonghornError} from '../../lib/errors.js'
import type {Frontend} from '../frontends/frontend.js'
import {waitQuiet} from '../frontends/quiet.js'
import type {Membership} from '../membership.js'
import type {RebuildInfo} from '../rebuild.js'
import type {ReplicaStatus} from '../replica-set.js'
import type {Scrub} from '../scrub/scrub.js'
import type {Volume} from '../volume.js'
import type {VolumeSettings} from '../volume-settings.js'
import {hostClock, STATE_VERSION, type EngineState} from './engine-state.js'

/** How long requests under way may take. A replica that does not answer has been dropped by then, if there is another. */
const QUIET_MS = 20_000

/** What is handed over, as the engine has it. */
export interface Parts {
  readonly volume: Volume
  readonly settings: VolumeSettings
  readonly scrub: Scrub
  readonly replicas: () => readonly ReplicaStatus[]
  readonly rebuilds: readonly RebuildInfo[]
  readonly frontend: {readonly name: string; readonly server: Frontend} | undefined
  readonly session: string
  readonly membership: () => Membership | undefined
}

/** An engine that stands still: nothing is in flight, and it looks at no socket. */
export interface ParkedEngine {
  readonly state: EngineState
  readonly fds: readonly number[]
  /** Goes on, as if nothing had been. */
  resume(): void
}

/**
 * Answers what initiators have asked for, and stops to read from them and from the replicas. BUSY while a replica is being rebuilt,
 * UNSUPPORTED when the frontend cannot be handed over, TIMEOUT when something does not end; it goes on then.
 */
export async function parkEngine(parts: Parts): Promise<ParkedEngine> {
  const {volume, frontend} = parts
  const rebuilding = volume.members.find(link => link.mode !== 'RW')?.address ?? parts.rebuilds.find(({state}) => state === 'in_progress')?.address
  if (rebuilding !== undefined) throw new LonghornError('BUSY', `replica ${rebuilding} is being rebuilt; upgrade when that is done`)
  if (frontend !== undefined && frontend.server.park === undefined) throw new LonghornError('UNSUPPORTED', `frontend ${frontend.name} cannot be handed over`)
  await parts.scrub.stop()
  const stoppedAt = hostClock()
  const deadline = performance.now() + QUIET_MS
  const parked = await frontend?.server.park?.(deadline)
  const goOn = (): void => {
    volume.resume()
    parked?.resume()
  }
  try {
    await volume.pause()
    await waitQuiet(`volume ${volume.name}`, deadline, () => volume.isQuiet)
  } catch (error) {
    goOn()
    throw error
  }
  volume.detach()
  const links = volume.members
  const state: EngineState = {
    version: STATE_VERSION,
    volume: volume.name,
    sizeBytes: volume.sizeBytes,
    session: parts.session,
    membership: parts.membership(),
    settings: {...parts.settings},
    changes: volume.changes,
    replicas: parts.replicas().map(({address, reason}) => {
      const fd = links.findIndex(link => link.address === address)
      const link = links[fd]
      return link === undefined ? {address, reason: reason ?? 'not in use'} : {address, link: {fd, member: link.member, name: link.name, features: link.features}}
    }),
    frontend: frontend && {name: frontend.name, state: parked?.state, firstFd: links.length},
    stoppedAt,
  }
  const resume = (): void => {
    volume.reattach()
    goOn()
  }
  return {state, fds: [...links.map(link => link.client.fd), ...(parked?.fds ?? [])], resume}
}
