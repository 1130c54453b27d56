import {stat} from 'node:fs/promises'
import {join} from 'node:path'
import {isKind, LonghornError} from '../../lib/errors.js'
import type {DirectoryLock} from '../directory-lock.js'
import {realDisk, type DiskSteps} from '../disk-steps.js'
import {ioFailure} from '../io-failure.js'
import {listDirectory, readLayer, readReplicaDirectory, readVolumeMeta, type Layer} from '../layer-chain.js'
import {formatLayerMeta, newHeadMeta} from '../layer-meta.js'
import {checksumFile, FIRST_HEAD, isHeadName, isLayerName, isTemporaryName, metaFile, nextHeadName, snapshotFile} from '../layer-names.js'
import {openReplica} from '../open-replica.js'
import {isRebuildSnapshot} from '../../protocol/rebuild-snapshot.js'
import {newVolumeMeta, type VolumeMeta} from '../volume-meta.js'
import {writeVolumeMeta} from '../volume-meta-file.js'
import {sameLayer, type LayerDescription} from './layer-description.js'

/** How a replica that is not up to date is to take part again. */
export interface JoinRequest {
  readonly sizeBytes: number
  /** Without the parts that make it a file name; the others are about to take it. */
  readonly snapshot: string
  /** RFC 3339. */
  readonly created: string
  /** What the others will have below their heads, parents first, with the snapshot. */
  readonly layers: readonly LayerDescription[]
  /** It has everything that was flushed; see ReplicaJoinRequest. */
  readonly resync: boolean
  readonly related: boolean
}

/** Which layers have to be looked at, and how. */
export interface JoinedDirectory {
  /** All it had is here still: it can be opened as it is, should the rebuild not come to its end. */
  readonly whole: boolean
  /** The layer whose file is what was the head here; undefined when there was none. */
  readonly formerHead: string | undefined
  /** What has changed since it was dropped is all that can differ in `formerHead`, and in `doubtful`. */
  readonly comparable: boolean
  /** Layers that are here, and that may hold something else than those of the same name on the others. */
  readonly doubtful: ReadonlySet<string>
}

/**
 * Makes the directory ready for a rebuild: a new empty head on top of a snapshot that is not complete. Of what is there, everything
 * stays that may save copying: layers of the same name, and the former head as the lowest layer that is missing.
 *
 * volume.meta says that a rebuild is under way before anything else is changed, so a crash leaves something that only another rebuild
 * opens; unless the replica is whole and stays that, where the snapshot is taken here like any other.
 */
export async function joinDirectory(path: string, request: JoinRequest, lock: DirectoryLock, disk: DiskSteps = realDisk): Promise<JoinedDirectory> {
  try {
    const whole = request.resync ? await joinWhole(path, request, lock, disk) : undefined
    return whole ?? (await rearrange(path, request, disk))
  } catch (error) {
    throw ioFailure(`preparing ${path} for a rebuild`, error)
  }
}

/**
 * Takes the snapshot here, if there are the same layers as on the others; undefined when there are not. The former head, and the layer below it, may have been
 * written at a crash.
 */
async function joinWhole(path: string, request: JoinRequest, lock: DirectoryLock, disk: DiskSteps): Promise<JoinedDirectory | undefined> {
  const file = snapshotFile(request.snapshot)
  const found = await readReplicaDirectory(path).catch((error: unknown) => {
    if (isKind(error, 'CORRUPT') || isKind(error, 'NOT_FOUND')) return undefined
    throw error
  })
  if (found === undefined || found.volume.rebuilding || found.volume.sizeBytes !== request.sizeBytes) return undefined
  const theirs = new Map(request.layers.map(layer => [layer.file, layer]))
  const ours = [...found.chain.slice(0, -1), ...found.others.filter(layer => !isHeadName(layer.file))]
  const same = ours.length === theirs.size - 1 && ours.every(layer => theirs.get(layer.file)?.meta.parent === layer.meta.parent)
  if (!same || found.chain.at(-1)!.meta.parent !== theirs.get(file)?.meta.parent) return undefined
  const doubtful = new Set([file, found.chain.at(-1)!.meta.parent, ...unverified(found.chain)])
  // They are made the same, and must fit on what lies below them here; see doubtfulLayers().
  const below = found.chain[found.chain.findIndex(layer => doubtful.has(layer.file)) - 1]
  if (below !== undefined && (below.meta.removed || theirs.get(below.file)!.meta.removed)) return undefined
  const volume = await openReplica(path, {lock, disk})
  try {
    const {userCreated, labels} = theirs.get(file)!.meta
    await volume.snapshot({name: request.snapshot, userCreated, created: request.created, labels: labels ?? {}})
    await volume.flush()
  } finally {
    // Not closed: it is not clean before it has been compared.
    await volume.abandon()
  }
  return {whole: true, formerHead: file, comparable: false, doubtful}
}

async function rearrange(path: string, request: JoinRequest, disk: DiskSteps): Promise<JoinedDirectory> {
  const entries = await listDirectory(path)
  const before = await readVolumeMeta(path).catch((error: unknown) => {
    if (isKind(error, 'CORRUPT')) return undefined
    throw error
  })
  const head = nextHeadName(before?.head ?? FIRST_HEAD, entries)
  const snapshot = snapshotFile(request.snapshot)
  await disk.createSparse(join(path, head), request.sizeBytes, 0o644)
  await disk.writeSynced(join(path, metaFile(head)), formatLayerMeta(newHeadMeta(head, snapshot, new Date(request.created))), 0o644)
  await disk.syncDirectory(path)
  const volume: VolumeMeta = {...newVolumeMeta(request.sizeBytes, head), parent: snapshot, dirty: true, rebuilding: true}
  await writeVolumeMeta(path, volume, disk)

  const known = new Map<string, Layer>()
  for (const file of entries.filter(isLayerName)) {
    const layer = await readLayer(path, file).catch(ignoreCorrupt)
    if (layer !== undefined) known.set(file, layer)
  }
  const same = request.layers.filter(({file, meta}) => request.related && known.has(file) && sameLayer(known.get(file)!.meta, meta))
  const doubtful = doubtfulLayers(request.layers, same, known, before)
  const wanted = new Set(request.layers.map(({file}) => file))
  const twice = await sharedFiles(path, entries.filter(file => file === before?.head || wanted.has(file)))
  const kept = new Set(same.flatMap(({file}) => (doubtful.has(file) || twice.has(file) ? [] : [file])))
  for (const file of entries) {
    const layer = file.replace(/\.(meta|checksum)$/, '')
    if (file === layer && file === before?.head) continue
    if (isTemporaryName(file)) await disk.remove(join(path, file))
    else if (!isLayerName(layer) || kept.has(layer)) continue
    // Two names of one file are left of a snapshot that was not taken, or of a merge: what is written to one would be in the other.
    else if (layer !== file || !wanted.has(layer) || (await stat(join(path, file))).nlink > 1) await disk.remove(join(path, file))
  }
  // The head of a rebuild that was broken off has writes without what lay below them.
  const usable = before !== undefined && !before.rebuilding && known.has(before.head) ? known.get(before.head) : undefined
  const left = await listDirectory(path)
  const target = request.layers.find(({file}) => !left.includes(file))
  const formerHead = usable === undefined ? undefined : target
  if (formerHead !== undefined) await disk.rename(join(path, usable!.file), join(path, formerHead.file))
  else if (before !== undefined && before.head !== head) await disk.remove(join(path, before.head))
  await disk.syncDirectory(path)
  const {parent = ''} = formerHead?.meta ?? {}
  const comparable = formerHead !== undefined && request.related && usable?.meta.parent === parent && (parent === '' || kept.has(parent) || doubtful.has(parent))
  return {whole: false, formerHead: formerHead?.file, comparable, doubtful}
}

/** Those of the files that are one file under several names. */
async function sharedFiles(path: string, files: readonly string[]): Promise<Set<string>> {
  const byInode = new Map<bigint, string[]>()
  for (const file of files) {
    const {ino} = await stat(join(path, file), {bigint: true})
    byInode.set(ino, [...(byInode.get(ino) ?? []), file])
  }
  return new Set([...byInode.values()].filter(names => names.length > 1).flat())
}

/**
 * Of the layers that are the same by their descriptions, those that may not be:
 *
 * - Removed ones, and those that stand on one. A purge takes from a removed layer what the head hides, on each replica at its own time. A
 *   block that is discarded in the head then becomes a hole where nothing is left below, and zeros elsewhere: one replica's hole
 *   on what the other still has below would bring that back.
 * - The one below the head of a replica that was not closed: a power cut may have come before the flush of that snapshot.
 * - Those of a resync that did not come to its end; see unverified().
 */
function doubtfulLayers(
  theirs: readonly LayerDescription[],
  same: readonly LayerDescription[],
  known: ReadonlyMap<string, Layer>,
  before: VolumeMeta | undefined,
): Set<string> {
  const suspect = unverified(chainIn(known, before?.head))
  // Also of those that are not the same, because one replica has merged what is below them and the other has not.
  const removed = new Set(theirs.flatMap(({file, meta}) => (meta.removed || known.get(file)?.meta.removed === true ? [file] : [])))
  const last = before?.dirty === true ? known.get(before.head)?.meta.parent : undefined
  return new Set(same.flatMap(({file, meta}) => (removed.has(file) || removed.has(meta.parent) || file === last || suspect.has(file) ? [file] : [])))
}

/** What there is of the chain that ends in this head, the head last. */
function chainIn(known: ReadonlyMap<string, Layer>, head: string | undefined): Layer[] {
  const chain: Layer[] = []
  for (let layer = known.get(head ?? ''); layer !== undefined && !chain.includes(layer); layer = known.get(layer.meta.parent)) chain.unshift(layer)
  return chain
}

/**
 * The layers of a chain, the head last, that a rebuild or resync of this replica may have left as they were: it ended before it had compared them. Its snapshot is not
 * marked as removed here then. It goes from the layer below the oldest such snapshot to the top.
 */
function unverified(chain: readonly Layer[]): Set<string> {
  const oldest = chain.findIndex(({file, meta}) => isRebuildSnapshot(file) && !meta.removed)
  if (oldest === -1) return new Set()
  return new Set(chain.slice(Math.max(0, oldest - 1), -1).map(({file}) => file))
}

/** The files of a layer that is complete from now on: its description appears last. */
export async function completeLayer(path: string, {file, meta}: LayerDescription, disk: DiskSteps): Promise<void> {
  await disk.remove(join(path, checksumFile(file)))
  const text = formatLayerMeta({...meta, name: file})
  await disk.writeSynced(join(path, `${metaFile(file)}.tmp`), text, 0o644)
  await disk.rename(join(path, `${metaFile(file)}.tmp`), join(path, metaFile(file)))
  await disk.syncDirectory(path)
}

function ignoreCorrupt(error: unknown): undefined {
  if (error instanceof LonghornError && isKind(error, 'CORRUPT')) return undefined
  throw error
}
