import {join} from 'node:path'
import {LonghornError} from '../lib/errors.js'
import {Cleanup} from '../lib/cleanup.js'
import type {DiskSteps} from './disk-steps.js'
import type {OnceStep} from './flusher.js'
import {listDirectory, readLayer, type Layer, type ReplicaDirectory} from './layer-chain.js'
import {openLayerFile, type LayerFile} from './layer-file.js'
import {formatLayerMeta, newHeadMeta} from './layer-meta.js'
import {checksumFile, metaFile, nextHeadName, snapshotFile, VOLUME_META} from './layer-names.js'
import {sealedVolumeMeta, type VolumeMeta} from './volume-meta.js'

/** What a snapshot is to be. */
export interface SnapshotSpec {
  /** Without the parts that make it a file name. */
  readonly name: string
  /** False for snapshots that the system takes for itself: a purge removes them. */
  readonly userCreated: boolean
  /** RFC 3339. The same on every replica, so it comes from the engine. */
  readonly created: string
  readonly labels: Readonly<Record<string, string>>
  /** The volume becomes this large with it, in bytes; undefined: it stays as it is. */
  readonly growTo?: number | undefined
}

/** The snapshot below which an expansion begins, by the name and label that upstream gives it. */
export function expansionSpec(sizeBytes: number, created: string): SnapshotSpec {
  return {name: `expand-${sizeBytes}`, userCreated: false, created, labels: {'replica-expansion': `${sizeBytes}`}, growTo: sizeBytes}
}

/**
 * A snapshot that is one rename away from being taken. Everything slow has been done while the volume went on being written:
 *
 *     volume-head-(N+1).img, .meta    the new head, empty, on top of the snapshot
 *     volume-snap-NAME.img            a second name of the present head
 *     volume-snap-NAME.img.meta       its description
 *     volume.meta.tmp                 the volume with the new head
 *
 * The rename of volume.meta.tmp commits. Whatever a crash leaves of this before that is found at the next open and removed
 * (leftovers.ts); afterwards only the old head's name is left over.
 */
export interface PreparedSnapshot {
  readonly spec: SnapshotSpec
  /** What volume.meta says once it is taken. */
  readonly volume: VolumeMeta
  /** The present head under the name it will have, and the new head; with their open files. */
  readonly frozen: Layer
  readonly frozenFile: LayerFile
  readonly head: Layer
  readonly headFile: LayerFile
}

/** Does everything but the last step. Throws CONFLICT when there is such a snapshot already, USAGE for a name that cannot be one. */
export async function prepareSnapshot(directory: ReplicaDirectory, volume: VolumeMeta, spec: SnapshotSpec, disk: DiskSteps): Promise<PreparedSnapshot> {
  const {path} = directory
  const file = snapshotFile(spec.name)
  const entries = await listDirectory(path)
  // The wording is upstream's: its engine takes this answer for a refusal and not for a failed replica.
  if (entries.includes(file)) throw new LonghornError('CONFLICT', `snapshot ${file} is already existing`)
  const present = directory.chain.at(-1)!
  const head = nextHeadName(present.file, entries)
  await using undo = new Cleanup()
  // A disk that refuses the removal as well leaves something that the next open recognises.
  const remove = (name: string): void => undo.defer(() => disk.remove(join(path, name)).catch(() => undefined))
  remove(metaFile(head))
  remove(head)
  const sizeBytes = spec.growTo ?? volume.sizeBytes
  await disk.createSparse(join(path, head), sizeBytes, 0o644)
  await disk.writeSynced(join(path, metaFile(head)), formatLayerMeta(newHeadMeta(head, file, new Date(spec.created))), 0o644)
  remove(metaFile(file))
  await disk.link(join(path, present.file), join(path, file))
  remove(file)
  const meta = {...present.meta, removed: false, userCreated: spec.userCreated, created: spec.created, labels: spec.labels}
  await disk.writeSynced(join(path, metaFile(file)), formatLayerMeta(meta), 0o644)
  const next: VolumeMeta = {...volume, sizeBytes, head, parent: file, dirty: true}
  await disk.writeSynced(temporaryMeta(path), sealedVolumeMeta(next), 0o644)
  await disk.syncDirectory(path)
  const frozen = {...present, file, meta}
  const newHead = await readLayer(path, head)
  const frozenFile = undo.add(openLayerFile(path, frozen, false))
  const headFile = undo.add(openLayerFile(path, newHead, true))
  undo.move()
  return {spec, volume: next, frozen, frozenFile, head: newHead, headFile}
}

/** Takes back what was prepared. */
export async function discardPrepared(path: string, {frozen, frozenFile, head, headFile}: PreparedSnapshot, disk: DiskSteps): Promise<void> {
  frozenFile.close()
  headFile.close()
  for (const file of [VOLUME_META_TEMPORARY, metaFile(frozen.file), frozen.file, metaFile(head.file), head.file]) await disk.remove(join(path, file))
}

/** The last step: the snapshot is taken when this resolves, and nothing has changed when it rejects. Durable with the next sync of the directory. */
export async function commitPrepared(path: string, disk: DiskSteps): Promise<void> {
  await disk.rename(temporaryMeta(path), join(path, VOLUME_META))
}

/** The directory as it is once `prepared` has been committed and the old head's names are gone. */
export function withSnapshot(directory: ReplicaDirectory, {volume, frozen, head}: PreparedSnapshot): ReplicaDirectory {
  const old = directory.chain.at(-1)!.file
  const gone = oldNames(old)
  const entries = [...directory.entries.filter(name => !gone.includes(name)), frozen.file, metaFile(frozen.file), head.file, metaFile(head.file)].sort()
  return {...directory, volume, chain: [...directory.chain.slice(0, -1), frozen, head], entries}
}

/** Removes the names that the frozen layer had as a head. They are found again at the next open if that fails. */
export async function removeOldNames(path: string, oldHead: string, disk: DiskSteps): Promise<void> {
  for (const name of oldNames(oldHead)) await disk.remove(join(path, name))
}

/** Makes the names in a directory durable along with the data. */
export function syncDirectoryOnce(path: string, disk: DiskSteps, synced: () => void): OnceStep {
  return {
    sync(done) {
      disk.syncDirectory(path).then(() => done(null), done)
    },
    synced,
  }
}

const VOLUME_META_TEMPORARY = `${VOLUME_META}.tmp`

function temporaryMeta(path: string): string {
  return join(path, VOLUME_META_TEMPORARY)
}

function oldNames(head: string): string[] {
  return [checksumFile(head), metaFile(head), head]
}
