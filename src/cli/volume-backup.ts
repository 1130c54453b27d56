// `backup create`: snapshot, backup through a replica, removal of what is older than is to be kept.
import {randomUUID} from 'node:crypto'
import {setTimeout as sleep} from 'node:timers/promises'
import type {BackupRecord} from '../backup/format/backup-record.js'
import type {BackupStore} from '../backup/store/backup-store.js'
import type {TransferProgress} from '../backup/transfer-progress.js'
import {isKind, LonghornError, messageOf} from '../lib/errors.js'
import type {BackupStatusResponse} from '../protocol/proto/generated/sync-agent.js'
import {blockFormFor, storeCredentials} from './backup-target.js'
import type {EngineClient} from './engine-connection.js'
import {connectSyncAgent, listSnapshots, withReplicas} from './volume-snapshots.js'

const POLL_MS = 300
/** Beginning a backup takes two locks of two seconds each, and a few round trips to the store. */
const START_TIMEOUT_MS = 180_000

/** On the snapshots and backups that `backup create` makes: only those are removed by it. Its value is the target. */
export const MADE_BY = 'longhorn.io/backup-create'

export interface BackupRequest {
  readonly volume: string
  readonly target: string
  /** Undefined: one is taken. */
  readonly snapshot: string | undefined
  readonly backup: string | undefined
  readonly labels: ReadonlyMap<string, string>
  readonly compression: string
  readonly blockBytes: number
  readonly concurrency: number
  readonly full: boolean
  readonly signal: AbortSignal
  readonly onProgress: (progress: TransferProgress) => void
}

export interface MadeBackup {
  readonly backup: string
  readonly url: string
  readonly snapshot: string
  readonly incremental: boolean
  readonly replica: string
  readonly blocks: number
  readonly newBytes: number
}

/**
 * Backs a volume up through one of its replicas, which does the work; an interrupt ends it there, too. Without a snapshot to back up one is taken, which stays as the base of the
 * next backup; those of earlier runs to the same target are marked as removed when this has worked.
 */
export async function backUpVolume(engine: EngineClient, request: BackupRequest): Promise<MadeBackup> {
  const made = await makeBackup(engine, request)
  if (request.snapshot !== undefined) return made
  try {
    await removeOldSnapshots(engine, request, made.snapshot)
  } catch (error) {
    throw afterBackup(made.backup, 'the snapshots of older ones', error)
  }
  return made
}

async function makeBackup(engine: EngineClient, request: BackupRequest): Promise<MadeBackup> {
  const {volume, signal} = request
  return withReplicas(engine, volume, signal, async replicas => {
    const snapshot = request.snapshot ?? (await engine.volumeSnapshot({name: `backup-${randomUUID()}`, labels: new Map([[MADE_BY, request.target]])}, {signal})).name
    const replica = replicas[0]!.address
    const agent = connectSyncAgent(replica, volume)
    try {
      const {backup, isIncremental} = await agent.backupCreate(await toRequest(request, snapshot), {signal, timeoutMs: START_TIMEOUT_MS})
      const status = await wait(agent, backup, request)
      return {backup, url: status.backupUrl, snapshot, incremental: isIncremental, replica, blocks: Number(status.totalBlocks), newBytes: Number(status.newBytes)}
    } catch (error) {
      // One that cannot be reached now keeps it until the next run that works.
      if (request.snapshot === undefined) await Promise.allSettled(replicas.map(({rpc}) => rpc.diskMarkAsRemoved({name: snapshot})))
      throw error
    } finally {
      agent.destroy()
    }
  })
}

/** Removes the oldest backups that this command made of the volume, so that `retain` of them are left. */
export async function retainBackups(store: BackupStore, volume: string, retain: number, signal: AbortSignal): Promise<string[]> {
  const {findBackup, listBackups} = await import('../backup/catalog.js')
  const {isFinished} = await import('../backup/format/backup-record.js')
  const made: BackupRecord[] = []
  for (const name of await listBackups(store, volume, signal)) {
    const record = await findBackup(store, volume, name, signal)
    // Without its list of blocks: there may be many, and each is long.
    if (record !== undefined && isFinished(record) && record.labels?.[MADE_BY] !== undefined) made.push({...record, blocks: []})
  }
  made.sort((a, b) => b.snapshotCreatedAt.localeCompare(a.snapshotCreatedAt) || b.createdTime.localeCompare(a.createdTime))
  const old = made.slice(retain).map(({name}) => name)
  if (old.length === 0) return []
  const {removeBackups} = await import('../backup/remove.js')
  return [...(await removeBackups(store, {volume, backups: old, signal})).backups]
}

async function toRequest({volume, target, backup, labels, compression, blockBytes, concurrency, full}: BackupRequest, snapshot: string) {
  return {
    snapshotFileName: snapshot,
    backupTarget: target,
    volumeName: volume,
    labels: [...labels, [MADE_BY, 'true'] as const].map(([key, value]) => `${key}=${value}`),
    credential: storeCredentials(),
    backingImageName: '',
    backingImageChecksum: '',
    backupName: backup ?? '',
    compressionMethod: await blockFormFor(compression),
    concurrentLimit: concurrency,
    storageClassName: '',
    parameters: new Map([['backup-block-size', String(blockBytes)], ...(full ? [['backup-mode', 'full'] as const] : [])]),
    exclusive: true,
  }
}

async function wait(agent: ReturnType<typeof connectSyncAgent>, backup: string, {signal, onProgress}: BackupRequest): Promise<BackupStatusResponse> {
  try {
    for (;;) {
      const status = await agent.backupStatus({backup}, {signal})
      onProgress({blocks: Number(status.blocks), totalBlocks: Number(status.totalBlocks), volumeBytes: Number(status.volumeBytes), objectBytes: Number(status.newBytes)})
      if (status.state === 'error') throw new LonghornError('IO', `backup ${backup} failed: ${status.error}`)
      if (status.state === 'complete') return status
      await sleep(POLL_MS, undefined, {signal})
    }
  } catch (error) {
    if (signal.aborted) await cancel(agent, backup)
    throw error
  }
}

async function cancel(agent: ReturnType<typeof connectSyncAgent>, backup: string): Promise<void> {
  try {
    await agent.backupRemove({backup})
  } catch (error) {
    throw new LonghornError('INTERRUPTED', `interrupted, but the replica could not be told and may go on with backup ${backup}: ${messageOf(error)}`, {backup}, {cause: error})
  }
}

/** Marks the snapshots that earlier runs to this target have left; the next purge gives their space back. */
async function removeOldSnapshots(engine: EngineClient, {volume, target, signal}: BackupRequest, keep: string): Promise<void> {
  const old = (await listSnapshots(engine, volume, signal)).filter(({name, labels, removed}) => name !== keep && !removed && labels[MADE_BY] === target)
  await withReplicas(engine, volume, signal, async replicas => {
    for (const {name} of old) await Promise.all(replicas.map(({rpc}) => rpc.diskMarkAsRemoved({name}, {signal})))
  })
}

/** The failure of the second half: the backup itself is there, and `what` was not removed. */
export function afterBackup(backup: string, what: string, error: unknown): LonghornError {
  const kind = isKind(error, 'BUSY') ? 'BUSY' : 'IO'
  return new LonghornError(kind, `backup ${backup} is complete, but ${what} were not removed: ${messageOf(error)}`, {backup}, {cause: error})
}
