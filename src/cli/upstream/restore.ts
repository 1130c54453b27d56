// Upstream's restore (reference: backupstore-format 6.2): the client checks, then asks each replica, which does it by itself.
import {randomUUID} from 'node:crypto'
import {LonghornError} from '../../lib/errors.js'
import {storeCredentials} from '../backup-target.js'
import type {EngineClient} from '../engine-connection.js'
import {askReplica, bareName, listReplicas, withAgent, type ListedReplica} from './replicas.js'

const START_TIMEOUT_MS = 180_000
/** The header of an encrypted volume. Bytes. */
const ENCRYPTION_HEADER_BYTES = 16 * 1024 ** 2

export interface UpstreamRestore {
  readonly url: string
  readonly volumeName: string | undefined
  readonly concurrency: number
  /** The volume has room for an encryption header beside the data. */
  readonly encrypted: boolean
  /** The size of the backup's volume in bytes. */
  readonly sizeOf: () => Promise<number>
  readonly signal: AbortSignal
}

export interface ReplicaFailure {
  readonly address: string
  readonly reason: unknown
}

/** Has all replicas begin. Returns those that did not; throws CONFLICT, BUSY when none was asked. */
export async function restoreOnReplicas(engine: EngineClient, request: UpstreamRestore): Promise<ReplicaFailure[]> {
  const {volumeName, signal} = request
  const {frontendState, size} = await engine.volumeGet({}, {signal})
  if (frontendState === 'up') throw new LonghornError('CONFLICT', 'volume frontend enabled, cannot perform restore')
  const replicas = await listReplicas(engine, signal)
  const refused = await failuresOf(replicas, replica => refuseRebuilding(replica, volumeName, signal))
  if (refused.length > 0) return refused
  const layer = await chooseLayer(replicas, volumeName, signal)
  const needed = BigInt((await request.sizeOf()) + (request.encrypted ? ENCRYPTION_HEADER_BYTES : 0))
  if (needed > size) throw new LonghornError('CONFLICT', `need to expand the DR volume ${volumeName ?? ''} to size ${needed} before the restore: it has ${size}`)
  if (needed < size) throw new LonghornError('CONFLICT', `the volume has ${size} bytes, and the backup's had ${needed}: upstream restores into a volume of the same size only`)
  const wish = {backup: request.url, snapshotDiskName: layer, credential: storeCredentials(), concurrentLimit: request.concurrency, hold: false, baseBackup: '', baseLayer: ''}
  return failuresOf(replicas, async replica => {
    if (replica.mode === 'ERR') throw new LonghornError('CONFLICT', 'cannot restore backup from replica in mode ERR')
    await withAgent(replica, volumeName, agent => agent.backupRestore(wish, {signal, timeoutMs: START_TIMEOUT_MS}))
  })
}

async function refuseRebuilding(replica: ListedReplica, volumeName: string | undefined, signal: AbortSignal): Promise<void> {
  if ((await askReplica(replica, volumeName, signal)).rebuilding) throw new LonghornError('CONFLICT', 'cannot do restore for normal rebuilding replica')
  const {isPurging} = await withAgent(replica, volumeName, agent => agent.snapshotPurgeStatus({}, {signal}))
  if (isPurging) throw new LonghornError('BUSY', 'cannot do restore now since replicas are purging snapshots')
}

/** The layer that the volume has, or a new one where it has none. With more than one a purge begins, and it has to be asked again. */
async function chooseLayer(replicas: readonly ListedReplica[], volumeName: string | undefined, signal: AbortSignal): Promise<string> {
  const used = replicas.filter(({mode}) => mode !== 'ERR')
  const layers = new Set<string>()
  for (const replica of used) for (const file of (await askReplica(replica, volumeName, signal)).disks.keys()) if (bareName(file) !== 'volume-head') layers.add(file)
  if (layers.size <= 1) return [...layers][0] ?? `volume-snap-${randomUUID()}.img`
  await Promise.all(used.map(replica => withAgent(replica, volumeName, agent => agent.snapshotPurge({}, {signal}))))
  throw new LonghornError('BUSY', 'found more than 1 snapshot in the replicas, hence started to purge snapshots before the restore')
}

async function failuresOf(replicas: readonly ListedReplica[], work: (replica: ListedReplica) => Promise<void>): Promise<ReplicaFailure[]> {
  const results = await Promise.allSettled(replicas.map(work))
  return results.flatMap((result, index) => (result.status === 'rejected' ? [{address: replicas[index]!.address, reason: result.reason as unknown}] : []))
}
