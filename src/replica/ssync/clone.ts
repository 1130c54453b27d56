import {join} from 'node:path'
import {parseAddress, type TcpAddress} from '../../lib/address.js'
import {asError, LonghornError} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {connect} from '../../protocol/grpc/client.js'
import {toSize, toText} from '../../protocol/grpc/fields.js'
import {ReplicaServiceDefinition} from '../../protocol/proto/generated/replica.js'
import type {SnapshotCloneRequest} from '../../protocol/proto/generated/sync-agent.js'
import {realDisk} from '../disk-steps.js'
import {newHeadMeta} from '../layer-meta.js'
import {snapshotFile} from '../layer-names.js'
import type {Replica} from '../replica.js'
import {LayerSink} from './layer-sink.js'
import type {RebuildTarget} from './rebuild-target.js'
import type {ReceiverPorts} from './receiver-ports.js'
import {syncAgentAt} from './sync-agent-client.js'

export interface CloneOptions {
  readonly replica: Replica
  readonly target: RebuildTarget
  readonly ports: ReceiverPorts
  readonly log: Log
  readonly signal: AbortSignal
  /** Percent. */
  readonly onProgress: (percent: number) => void
}

/**
 * Makes this replica, which is open and has nothing worth keeping, what another volume was at a snapshot: the merged view of that becomes one layer
 * here, and the replica reverts to it. Until the description of that layer is written, last, it is no layer, only a file
 * that the next attempt uses.
 *
 * NOT_FOUND when the source has no such snapshot, CONFLICT when there is one here, USAGE when the source is larger.
 */
export async function cloneSnapshot(request: SnapshotCloneRequest, options: CloneOptions): Promise<void> {
  const {replica, target, log, signal} = options
  const source = parseAddress(toText(request.fromAddress, 'SnapshotClone: from_address'))
  if (source.kind !== 'tcp') throw new LonghornError('USAGE', `SnapshotClone: from_address is ${request.fromAddress}: expected that of a replica, tcp://host:port`)
  const layer = snapshotFile(toText(request.snapshotFileName, 'SnapshotClone: snapshot_file_name'))
  const {volume} = await replica.describe()
  if (volume === undefined) throw new LonghornError('CONFLICT', `the replica in ${replica.directory} is not open`)
  await target.checkMayReplace(layer)
  const totalBytes = await sizeAt(source, layer, request, signal)
  if (totalBytes > volume.sizeBytes) throw new LonghornError('USAGE', `the volume at ${request.fromAddress} has ${totalBytes} bytes, this one ${volume.sizeBytes}: expand it before cloning`)
  await receive(layer, source, request, {...options, maxBytes: volume.sizeBytes, totalBytes})
  const now = new Date()
  await target.describeLayer(layer, newHeadMeta(layer, '', now))
  await replica.revert(layer, now.toISOString())
  log.info({snapshot: layer, from: request.fromAddress}, 'cloned')
}

async function sizeAt(address: TcpAddress, layer: string, {fromVolumeName}: SnapshotCloneRequest, signal: AbortSignal): Promise<number> {
  const rpc = connect(ReplicaServiceDefinition, {peer: 'replica', address, identity: {volumeName: fromVolumeName}})
  try {
    const {replica} = await rpc.replicaGet({}, {signal})
    if (replica?.disks.has(layer) !== true) throw new LonghornError('NOT_FOUND', `${rpc.peer} has no snapshot ${layer}`)
    return toSize(replica.size, `${rpc.peer}: size`, 'PROTOCOL')
  } finally {
    rpc.destroy()
  }
}

async function receive(
  layer: string,
  source: TcpAddress,
  {fromVolumeName, snapshotFileName, toHost, fileSyncHttpClientTimeout}: SnapshotCloneRequest,
  {replica, ports, log, signal, onProgress, maxBytes, totalBytes}: CloneOptions & {maxBytes: number; totalBytes: number},
): Promise<void> {
  let bytes = 0
  const receiver = await ports.start({
    sink: new LayerSink(replica.directory, layer, maxBytes),
    log,
    onProgress: done => {
      bytes += done
      onProgress(Math.min(99, Math.floor((100 * bytes) / Math.max(1, totalBytes))))
    },
  })
  const abort = new AbortController()
  receiver.done.catch((error: unknown) => abort.abort(error))
  const agent = syncAgentAt(source, fromVolumeName)
  try {
    const request = {snapshotFileName, host: toHost, port: receiver.port, fileSyncHttpClientTimeout}
    await agent.volumeExport(request, {timeoutMs: Infinity, signal: AbortSignal.any([abort.signal, signal])})
    const {opened} = await receiver.finish()
    if (!opened) throw new LonghornError('PROTOCOL', `${agent.peer} says that it has sent ${layer}, and nothing has come`)
  } catch (error) {
    receiver.destroy(asError(error))
    await realDisk.remove(join(replica.directory, layer))
    throw error
  } finally {
    agent.destroy()
  }
}
