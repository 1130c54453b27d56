import {stat} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf} from '../lib/errors.js'
import {realDisk, type DiskSteps} from './disk-steps.js'
import {checksumFile, isHeadName, isLayerName, isTemporaryName, metaFile} from './layer-names.js'
import type {ReplicaDirectory} from './layer-chain.js'

/**
 * What an interrupted operation left in a replica directory and nothing can need any more:
 *
 * - X.tmp: the rewrite of X did not reach its rename.
 * - A head that is not the head, and has no data: the new head of a snapshot, revert or expansion that was not
 *   committed, or the .meta of an old one whose data is gone already.
 * - A head that is not the head, on top of a snapshot that is the same file as the head: the new head of a snapshot whose
 *   commit a power cut took back. Nothing that was written to it had been flushed.
 * - A head that is not the head, and is the same file as a snapshot of the chain: the old name of a layer whose
 *   snapshot was committed.
 * - A snapshot outside the chain that is the same file as the head: the new name of a layer whose snapshot was not
 *   committed. Left alone it would change with every write.
 *
 * - A .meta without data, of a layer that nothing stands on: what a purge was removing.
 *
 * Whatever is a layer's parent stays, and so does a foreign head with data of its own (after an interrupted revert):
 * that it is of no use cannot be proved.
 */
export async function findLeftovers(directory: ReplicaDirectory): Promise<string[]> {
  const live = new Set(directory.chain.map(layer => layer.file))
  const frozen = new Set(directory.chain.slice(0, -1).map(layer => layer.inode))
  const headInode = directory.chain.at(-1)?.inode
  const entries = new Set(directory.entries)
  const orphans = new Set<string>()

  const heads = candidates(directory.entries.map(layerOf), isHeadName, live, parentsIn(directory, orphans))
  for (const file of heads) {
    const data = await identify(join(directory.path, file))
    if (data === undefined || data.empty || frozen.has(data.inode) || standsOn(directory, file, headInode)) orphans.add(file)
  }
  // Only now: the head of a snapshot that was not committed names that snapshot as its parent.
  const snapshots = candidates(directory.entries, file => isLayerName(file) && !isHeadName(file), live, parentsIn(directory, orphans))
  for (const file of snapshots) {
    const data = await identify(join(directory.path, file))
    if (data !== undefined && data.inode === headInode) orphans.add(file)
  }

  for (const file of candidates(directory.entries.map(layerOf), isLayerName, live, parentsIn(directory, orphans))) {
    if (!entries.has(file)) orphans.add(file)
  }

  const files = [...orphans].flatMap(layer => [checksumFile(layer), metaFile(layer), layer])
  return [...directory.entries.filter(isTemporaryName), ...files].filter(file => entries.has(file))
}

/** Removes leftovers, durably. A layer's data goes last: while it is there the next open finds the leftover again. */
export async function removeLeftovers(directory: string, files: readonly string[], disk: DiskSteps = realDisk): Promise<void> {
  for (const file of files) await disk.remove(join(directory, file))
  if (files.length > 0) await disk.syncDirectory(directory)
}

/** Whether a layer outside the chain has a parent that is the file with this inode. */
function standsOn(directory: ReplicaDirectory, file: string, inode: bigint | undefined): boolean {
  const parent = directory.others.find(layer => layer.file === file)?.meta.parent
  return directory.others.some(layer => layer.file === parent && layer.inode === inode)
}

function candidates(
  files: readonly string[],
  accept: (file: string) => boolean,
  live: ReadonlySet<string>,
  parents: ReadonlySet<string>,
): Set<string> {
  return new Set(files.filter(file => accept(file) && !live.has(file) && !parents.has(file)))
}

/** The layers that some layer, other than these orphans, has as its parent. */
function parentsIn(directory: ReplicaDirectory, orphans: ReadonlySet<string>): Set<string> {
  const layers = [...directory.chain, ...directory.others].filter(layer => !orphans.has(layer.file))
  return new Set(layers.map(layer => layer.meta.parent))
}

/** A .meta may be all that is left of a head, so it stands for its layer. */
function layerOf(file: string): string {
  return file.replace(/\.meta$/, '')
}

async function identify(path: string): Promise<{inode: bigint; empty: boolean} | undefined> {
  try {
    const status = await stat(path, {bigint: true})
    // Blocks, not size: a new head has its full size from the beginning. Counted without syncing, data that is
    // still in memory shows as blocks too (delayed allocation reserves them).
    return {inode: status.ino, empty: status.blocks === 0n}
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    throw error
  }
}
