// Adding a replica to an engine of upstream's kind: the client leads it through the steps (reference: engine-interop 4.3).
import {isKind, LonghornError} from '../../lib/errors.js'
import {toSize} from '../../protocol/grpc/fields.js'
import {ReplicaMode} from '../../protocol/proto/generated/controller.js'
import type {Replica} from '../../protocol/proto/generated/replica.js'
import {present, type EngineClient} from '../engine-connection.js'
import {connectReplica, hostOf, listReplicas, withAgent} from './replicas.js'

export interface AddRequest {
  /** `tcp://host:port` */
  readonly address: string
  readonly instanceName: string
  readonly volumeName: string | undefined
  /** Bytes, for a volume that has no replica yet. */
  readonly sizeBytes: number
  readonly currentSizeBytes: number
  /** Files whose checksum and time agree are not copied. */
  readonly fastSync: boolean
  readonly fileTimeoutS: number
  readonly totalTimeoutS: number
}

type ReplicaClient = ReturnType<typeof connectReplica>

/** From this version on an engine says from how many replicas at once may be copied. */
const LIMIT_SINCE = 6n

/**
 * Has a replica join a volume: it takes writes from early on, its snapshots are copied from others, and it is taken into use
 * when they are there. Resolves at the end. When it fails half-way the replica stays in mode WO or ERR until it is removed.
 * CONFLICT for a replica that is larger than the volume, NO_DATA without one to copy from; else the errors of the calls.
 */
export async function addReplica(engine: EngineClient, request: AddRequest, signal: AbortSignal): Promise<void> {
  const {address, instanceName, volumeName} = request
  const volume = await engine.volumeGet({}, {signal})
  if (volume.replicaCount === 0) {
    await startWith(engine, request, signal)
    return
  }
  if (await takenIn(engine, address, request.totalTimeoutS * 1000, signal)) return
  await using target = connectReplica(address, volumeName, instanceName)
  await grow(target, address, volume.size, signal)
  await forgetFailedRebuild(target, signal)
  await engine.controllerReplicaCreate({address, snapshotRequired: true, mode: ReplicaMode.WO}, {signal})
  const sources = await chooseSources(engine, signal)
  await target.rebuildingSet({rebuilding: true}, {signal})
  const {syncFileInfoList} = await engine.replicaPrepareRebuild({address, instanceName}, {signal})
  const head = syncFileInfoList.find(({fromFileName}) => fromFileName.startsWith('volume-head-'))
  if (head !== undefined) throw new LonghornError('PROTOCOL', `the engine wants ${head.fromFileName} copied, which is being written`)
  const files = {
    fromAddress: sources[0]!,
    fromAddressMap: new Map(sources.map(source => [source, true])),
    toHost: hostOf(address),
    syncFileInfoList,
    fastSync: request.fastSync,
    fileSyncHttpClientTimeout: request.fileTimeoutS,
    grpcTimeoutSeconds: BigInt(request.totalTimeoutS),
  }
  const timeoutMs = request.totalTimeoutS * 1000
  await withAgent({address}, volumeName, agent => agent.filesSync(files, {signal, timeoutMs}))
  await target.replicaReload({}, {signal})
  await engine.replicaVerifyRebuild({address, instanceName}, {signal})
  await target.rebuildingSet({rebuilding: false}, {signal})
}

/**
 * Has a replica join a volume that is being restored: it takes writes, and is taken into use after the restore
 * (verify-rebuild-replica). CONFLICT when it has not the volume's size.
 */
export async function addRestoreReplica(engine: EngineClient, request: AddRequest, signal: AbortSignal): Promise<void> {
  const {address, instanceName, volumeName} = request
  const volume = await engine.volumeGet({}, {signal})
  if (volume.replicaCount === 0) {
    await startWith(engine, request, signal)
    return
  }
  await using target = connectReplica(address, volumeName, instanceName)
  const size = sizeOf(await ask(target, signal), address)
  if (BigInt(size) !== volume.size) throw new LonghornError('CONFLICT', `replica ${address} has ${size} bytes, the volume ${volume.size}`)
  await target.replicaClose({}, {signal})
  await engine.controllerReplicaCreate({address, snapshotRequired: false, mode: ReplicaMode.WO}, {signal})
}

async function startWith(engine: EngineClient, {address, sizeBytes, currentSizeBytes}: AddRequest, signal: AbortSignal): Promise<void> {
  await engine.volumeStart({replicaAddresses: [address], size: BigInt(sizeBytes), currentSize: BigInt(currentSizeBytes)}, {signal})
}

/** An engine of ours does it all by itself. False when it is one of upstream. */
async function takenIn(engine: EngineClient, address: string, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
  try {
    await engine.replicaAdd({address, bytesPerSecond: 0n}, {signal, timeoutMs})
  } catch (error) {
    if (isKind(error, 'UNSUPPORTED')) return false
    throw error
  }
  await engine.replicaVerifyRebuild({address, instanceName: ''}, {signal, timeoutMs})
  return true
}

/** A replica that is smaller than the volume becomes as large. */
async function grow(target: ReplicaClient, address: string, volumeSize: bigint, signal: AbortSignal): Promise<void> {
  const replica = await ask(target, signal)
  const size = BigInt(sizeOf(replica, address))
  if (size > volumeSize) throw new LonghornError('CONFLICT', `replica ${address} has ${size} bytes, more than the volume: ${volumeSize}`)
  if (size === volumeSize) return
  const closed = replica.state === 'closed'
  if (closed) await target.replicaOpen({}, {signal})
  await target.replicaExpand({size: volumeSize}, {signal})
  if (closed) await target.replicaClose({}, {signal})
}

/** What an earlier rebuild that was cut short has left in it is used, and not in the way. */
async function forgetFailedRebuild(target: ReplicaClient, signal: AbortSignal): Promise<void> {
  const {state, rebuilding} = await ask(target, signal)
  if (state !== 'closed' || !rebuilding) return
  await target.replicaOpen({}, {signal})
  await target.rebuildingSet({rebuilding: false}, {signal})
  await target.replicaClose({}, {signal})
}

async function chooseSources(engine: EngineClient, signal: AbortSignal): Promise<string[]> {
  const sources = (await listReplicas(engine, signal)).filter(({mode}) => mode === 'RW').map(({address}) => address)
  if (sources.length === 0) throw new LonghornError('NO_DATA', 'the volume has no replica in mode RW to copy from')
  const {version} = await engine.versionDetailGet({}, {signal})
  if (present(version, 'the version').controllerAPIVersion < LIMIT_SINCE) return sources
  const {limit} = await engine.replicaRebuildConcurrentSyncLimitGet({}, {signal})
  return sources.slice(0, Math.max(1, limit))
}

async function ask(target: ReplicaClient, signal: AbortSignal): Promise<Replica> {
  return present((await target.replicaGet({}, {signal})).replica, 'the replica')
}

function sizeOf({size}: Replica, address: string): number {
  return toSize(size === '' ? '0' : size, `replica ${address}: size`, 'PROTOCOL')
}
