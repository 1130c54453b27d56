import {parseAddress, type TcpAddress} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import {toSize, toText, toTime} from '../../protocol/grpc/fields.js'
import type {DiskInfo, ReplicaJoinRequest, ReplicaRebuildRequest} from '../../protocol/proto/generated/replica.js'
import {layerFileOf, snapshotFile} from '../layer-names.js'
import type {JoinRequest} from './join.js'
import type {LayerDescription} from './layer-description.js'
import type {RebuildRequest} from './rebuild.js'
import {MAX_LAYERS} from '../sector-map.js'

/** Checks a request to join. Throws USAGE. */
export function toJoinRequest({size, snapshot, created, layers, resync, related}: ReplicaJoinRequest): JoinRequest {
  const file = snapshotFile(toText(snapshot, 'ReplicaJoin: snapshot'))
  const described = toLayers(layers, 'ReplicaJoin: layers')
  if (!described.some(layer => layer.file === file)) throw new LonghornError('USAGE', `ReplicaJoin: layers: ${file} is not among them`)
  return {sizeBytes: toSize(size, 'ReplicaJoin: size'), snapshot, created: toTime(created, 'ReplicaJoin: created'), layers: described, resync, related}
}

/** Checks a request to begin a rebuild. `snapshot`: what the head stands on. Throws USAGE. */
export function toRebuildRequest({sources, layers, bytesPerSecond, changed}: ReplicaRebuildRequest, snapshot: string): RebuildRequest {
  if (sources.length === 0) throw new LonghornError('USAGE', 'ReplicaRebuild: sources: at least one is needed')
  const described = toLayers(layers, 'ReplicaRebuild: layers')
  if (!described.some(layer => layer.file === snapshot)) throw new LonghornError('USAGE', `ReplicaRebuild: layers: ${snapshot} is not among them`)
  return {
    sources: sources.map(toSource),
    layers: described.map((layer, index) => ({...layer, allocatedBytes: toSize(layers[index]!.size, 'ReplicaRebuild: size')})),
    snapshot,
    bytesPerSecond: toSize(bytesPerSecond, 'ReplicaRebuild: bytes_per_second'),
    changed: changed.length === 0 ? undefined : Buffer.from(changed),
  }
}

/** Checks descriptions of layers, parents first. Throws USAGE. */
export function toLayers(disks: readonly DiskInfo[], what: string): LayerDescription[] {
  if (disks.length > MAX_LAYERS) throw new LonghornError('USAGE', `${what}: ${disks.length} layers are more than ${MAX_LAYERS}`)
  const seen = new Set([''])
  return disks.map(disk => {
    const file = layerFileOf(toText(disk.name, `${what}: name`))
    if (seen.has(file)) throw new LonghornError('USAGE', `${what}: ${file} is there twice`)
    if (!seen.has(disk.parent)) throw new LonghornError('USAGE', `${what}: ${disk.parent}, the parent of ${file}, is missing or comes after it`)
    seen.add(file)
    const {parent, removed, userCreated, created} = disk
    const labels = disk.labels.size === 0 ? null : Object.fromEntries(disk.labels)
    return {file, meta: {name: file, parent, removed, userCreated, created, labels}, lengthBytes: toSize(disk.lengthBytes, `${what}: length_bytes`)}
  })
}

function toSource(text: string): TcpAddress {
  const address = parseAddress(text)
  if (address.kind !== 'tcp' || address.port === 0 || address.port > 65534) throw new LonghornError('USAGE', `ReplicaRebuild: sources: "${text}" is not tcp://host:port`)
  return address
}
