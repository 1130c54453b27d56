// `backup restore` into a volume: the engine and its replicas do the work; here it is asked for and looked at.
import {setTimeout as sleep} from 'node:timers/promises'
import type {TransferProgress} from '../backup/transfer-progress.js'
import {isKind, LonghornError} from '../lib/errors.js'
import type {ReplicaRestore, VolumeRestoreStatusResponse} from '../protocol/proto/generated/controller.js'
import {storeCredentials} from './backup-target.js'
import type {EngineClient} from './engine-connection.js'

const POLL_MS = 300
/** Beginning takes a lock of two seconds, and a few round trips to the store. */
const START_TIMEOUT_MS = 180_000

export interface VolumeRestoreRequest {
  /** URL of the backup. */
  readonly backup: string
  readonly concurrency: number
  readonly replace: boolean
  readonly signal: AbortSignal
}

/** What is printed of a restore. */
export interface RestoreReport {
  readonly state: string
  readonly backup: string
  readonly error: string
  readonly incremental: boolean
  readonly lastRestored: string
  readonly usable: boolean
  readonly replicas: readonly ReplicaReport[]
}

export interface ReplicaReport {
  readonly address: string
  readonly state: string
  readonly error: string
  readonly progress: number
  readonly blocks: number
  readonly totalBlocks: number
  /** Bytes of objects that were read from the store. */
  readonly read: number
}

export async function beginRestore(engine: EngineClient, {backup, concurrency, replace, signal}: VolumeRestoreRequest): Promise<void> {
  await engine.volumeRestore({backup, credential: storeCredentials(), concurrentLimit: concurrency, replace}, {signal, timeoutMs: START_TIMEOUT_MS})
}

export async function restoreReport(engine: EngineClient, signal: AbortSignal): Promise<RestoreReport> {
  return toReport(await engine.volumeRestoreStatus({}, {signal}))
}

/** Until it is over. IO when it failed; an interrupt ends the waiting and not the restore. */
export async function waitForRestore(engine: EngineClient, signal: AbortSignal, onProgress: (progress: TransferProgress) => void): Promise<RestoreReport> {
  try {
    for (;;) {
      const status = await engine.volumeRestoreStatus({}, {signal})
      onProgress(progressOf(status.replicas))
      if (status.state === 'complete') return toReport(status)
      if (status.state !== 'in_progress') throw new LonghornError('IO', `the restore failed: ${status.error === '' ? 'it was cancelled' : status.error}`)
      await sleep(POLL_MS, undefined, {signal})
    }
  } catch (error) {
    if (!signal.aborted || isKind(error, 'IO')) throw error
    throw new LonghornError('INTERRUPTED', 'the restore goes on without this command: see longhorn backup restore-status; longhorn backup restore-cancel ends it', {}, {cause: error})
  }
}

function toReport({state, backup, error, incremental, lastRestored, usable, replicas}: VolumeRestoreStatusResponse): RestoreReport {
  return {
    state,
    backup,
    error,
    incremental,
    lastRestored,
    usable,
    replicas: replicas.map(({address, state, error, progress, blocks, totalBlocks, objectBytes}) => ({
      address,
      state,
      error,
      progress,
      blocks: Number(blocks),
      totalBlocks: Number(totalBlocks),
      read: Number(objectBytes),
    })),
  }
}

/** The volume has what its slowest replica has. */
function progressOf(replicas: readonly ReplicaRestore[]): TransferProgress {
  const going = replicas.filter(({state}) => state !== 'error')
  const slowest = going.reduce((least, one) => (one.progress < least.progress ? one : least), going[0]!)
  if (going.length === 0) return {blocks: 0, totalBlocks: 1, volumeBytes: 0, objectBytes: 0}
  return {blocks: Number(slowest.blocks), totalBlocks: Number(slowest.totalBlocks), volumeBytes: Number(slowest.volumeBytes), objectBytes: Number(slowest.objectBytes)}
}
