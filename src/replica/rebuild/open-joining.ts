import {Cleanup} from '../../lib/cleanup.js'
import type {DirectoryLock} from '../directory-lock.js'
import {realDisk, type DiskSteps} from '../disk-steps.js'
import {LonghornError} from '../../lib/errors.js'
import {listDirectory, readLayer, readVolumeMeta} from '../layer-chain.js'
import {openLayerStack} from '../layer-stack.js'
import {ReplicaVolume} from '../replica-volume.js'
import {RevisionCounter} from '../revision-counter.js'
import {markDirty} from '../volume-meta-file.js'

/** What lies below the head that is here, from a replica that has it: `length` bytes at `offset`. */
export type FetchBelow = (offset: number, length: number) => Promise<Buffer>

/**
 * Opens the head of a replica that is being rebuilt, without the layers below it. It can be written; what a write covers only in part
 * is fetched. joinDirectory() has been there. Errors as those of openReplica().
 */
export async function openJoining(directory: string, lock: DirectoryLock, fetchBelow: FetchBelow, disk: DiskSteps = realDisk): Promise<ReplicaVolume> {
  await using undo = new Cleanup()
  const meta = await readVolumeMeta(directory)
  if (meta === undefined) throw new LonghornError('CORRUPT', `${directory} has no volume.meta`)
  const volume = {...meta, dirty: true}
  const head = await readLayer(directory, volume.head)
  const counter = RevisionCounter.open(directory)
  if (counter !== undefined) undo.add(counter)
  const stack = undo.add(await openLayerStack(directory, [head], volume.sizeBytes, {writable: true, incomplete: true}))
  stack.fetchBelow = fetchBelow
  await markDirty(directory, volume, disk)
  const found = {path: directory, volume, recovered: false, sealed: true, chain: [head], others: [], damaged: [], entries: await listDirectory(directory)}
  return new ReplicaVolume({directory: found, leftovers: [], lock, stack, counter, disk, owner: undo.move()})
}
