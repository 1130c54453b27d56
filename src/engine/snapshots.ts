// Snapshots of a volume that is being used, on all its replicas at the same moment.
import {LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {FEATURE} from '../protocol/frame.js'
import {flushVolume} from './flush-volume.js'
import type {ReplicaControl, SnapshotRequest} from './replica-control.js'
import type {ReplicaLink} from './replica-link.js'
import type {Volume} from './volume.js'

export interface Members {
  readonly volume: Volume
  /** The control service of a replica. */
  control(link: ReplicaLink): ReplicaControl
  readonly log: Log
}

/**
 * Takes a snapshot: everything acknowledged before this call is in it, on every replica the same.
 *
 * First each replica prepares, while I/O goes on; if one refuses nothing has changed anywhere. Then the volume stands
 * still: nothing is in flight, each replica commits, which is a rename, and the volume goes on. A replica that fails at
 * that is dropped, unless all do. The snapshot survives a power cut when this resolves.
 * CONFLICT when there is a snapshot of that name; otherwise the error of the first replica that refused.
 * `atBarrier` is called at the moment of the snapshot, while nothing is in flight.
 */
export async function takeSnapshot(members: Members, request: SnapshotRequest, atBarrier: () => void = () => undefined): Promise<void> {
  const {volume} = members
  await prepare(members, request)
  const before = performance.now()
  try {
    await volume.pause()
    await commit(members, request)
    if (request.growTo !== undefined) volume.grow(request.growTo)
    atBarrier()
  } finally {
    volume.resume()
  }
  members.log.info({snapshot: request.name, stoodStillMs: Math.round(performance.now() - before)}, 'snapshot taken')
  await flushVolume(volume)
}

async function prepare({volume, control}: Members, request: SnapshotRequest): Promise<void> {
  if (volume.members.length === 0) throw noReplica()
  const able = volume.members.filter(link => link.features.includes(FEATURE.SNAPSHOT_PREPARE))
  const results = await Promise.allSettled(able.map(link => link.unlessDropped(control(link).prepareSnapshot(request))))
  // One that was dropped meanwhile has no say.
  const refusal = results.find((result, index) => result.status === 'rejected' && able[index]!.mode !== 'ERR')
  if (refusal?.status !== 'rejected') return
  // What cannot be taken back now the replica takes back by itself: before the next snapshot, or when it is closed.
  await Promise.allSettled(able.map(link => link.unlessDropped(control(link).discardSnapshot())))
  throw refusal.reason
}

async function commit({volume, control}: Members, request: SnapshotRequest): Promise<void> {
  const links = [...volume.members]
  if (links.length === 0) throw noReplica()
  const results = await Promise.allSettled(links.map(link => link.unlessDropped(commitOn(link, control(link), request))))
  const failures = links.flatMap((link, index) => {
    const result = results[index]!
    return result.status === 'rejected' ? [{link, reason: result.reason as Error}] : []
  })
  if (failures.length === links.length) throw failures[0]!.reason
  for (const {link, reason} of failures) {
    volume.fail(link, new LonghornError('IO', `replica ${link.address}: snapshot ${request.name}: ${reason.message}`, {}, {cause: reason}))
  }
}

/** An expansion without preparation has a message of its own. */
function commitOn(link: ReplicaLink, control: ReplicaControl, request: SnapshotRequest): Promise<void> {
  if (request.growTo === undefined || link.features.includes(FEATURE.SNAPSHOT_PREPARE)) return control.snapshot(request)
  return control.expand(request.growTo)
}

/**
 * Makes the volume larger while it is being used: a snapshot whose new head is larger, on every replica at the same moment.
 * What is new reads as zeros. Errors as those of takeSnapshot(); USAGE for a size that it cannot become.
 */
export async function expandVolume(members: Members, sizeBytes: number, created: string): Promise<void> {
  const request = {name: `expand-${sizeBytes}`, userCreated: false, created, labels: {'replica-expansion': `${sizeBytes}`}, growTo: sizeBytes}
  await takeSnapshot(members, request)
}

/**
 * Makes the volume what it was at a snapshot, on every replica. Nothing may use the volume meanwhile. A replica that fails
 * at it is dropped, unless all do: then the error is theirs and nothing has changed. NOT_FOUND when there is no such snapshot.
 */
export async function revertVolume({volume, control, log}: Members, layer: string, created: string): Promise<void> {
  const links = [...volume.members]
  if (links.length === 0) throw noReplica()
  const rebuilding = links.find(link => link.mode === 'WO')
  if (rebuilding !== undefined) throw new LonghornError('CONFLICT', `replica ${rebuilding.address} is being rebuilt; revert when it is done`)
  await volume.drained()
  const results = await Promise.allSettled(links.map(link => control(link).revert(layer, created)))
  // It is something else now, and not by writing.
  volume.forgetMissed()
  const refused = results.flatMap(result => (result.status === 'rejected' ? [result.reason as Error] : []))
  if (refused.length === links.length) throw refused[0]!
  for (const [index, link] of links.entries()) {
    const result = results[index]!
    if (result.status === 'rejected') volume.fail(link, new LonghornError('IO', `replica ${link.address}: revert to ${layer}: ${(result.reason as Error).message}`))
  }
  log.info({snapshot: layer}, 'reverted')
}

function noReplica(): LonghornError {
  return new LonghornError('NO_DATA', 'the volume has no usable replica')
}
