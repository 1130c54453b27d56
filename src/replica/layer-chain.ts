import {readdir, readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, isKind, LonghornError} from '../lib/errors.js'
import {isHeadName, isLayerName, metaFile, VOLUME_META} from './layer-names.js'
import {parseLayerMeta, type LayerMeta} from './layer-meta.js'
import {MAX_LAYERS} from './sector-map.js'
import {isSealed, parseVolumeMeta, SECTOR_BYTES, type VolumeMeta} from './volume-meta.js'

/** Files are read beside each other: with a thousand layers one after the other takes long. */
const AT_ONCE = 16

/** One layer as the directory describes it. */
export interface Layer {
  /** File name of the data, e.g. `volume-snap-a.img`. The only trustworthy name of a layer. */
  readonly file: string
  readonly meta: LayerMeta
  /** Apparent size in bytes. Layers from before an expansion are smaller than the volume. */
  readonly sizeBytes: number
  /** Space on disk in bytes. */
  readonly allocatedBytes: number
  /** Identity of the data file, to tell two names of one file from two files. */
  readonly inode: bigint
}

/** What a replica directory holds, read without changing anything. */
export interface ReplicaDirectory {
  readonly path: string
  readonly volume: VolumeMeta
  /** volume.meta was missing or empty, and `volume` has been put together from the head. */
  readonly recovered: boolean
  /** This program was the last to change volume.meta, so what it has noted in files of its own holds. */
  readonly sealed: boolean
  /** The live chain, oldest first; the last one is the head. Never empty. */
  readonly chain: readonly Layer[]
  /** The layer that the chain breaks off at because a rebuild has not brought it yet; undefined when the chain is whole. */
  readonly missing?: string | undefined
  /** Complete layers outside the live chain: other branches, kept after a revert, and leftovers. */
  readonly others: readonly Layer[]
  /** Layers outside the live chain that cannot be read, each with the reason. They do not keep the volume from working. */
  readonly damaged: readonly string[]
  /** Every name in the directory. */
  readonly entries: readonly string[]
}

/**
 * Reads a replica directory and checks that the live chain is whole.
 * NOT_FOUND when there is no replica; CORRUPT, naming the file, when a layer or its .meta is missing, the chain has a
 * loop, or a layer is larger than the volume. A missing layer is never taken for an empty one; while a rebuild is under way it is
 * said in `missing`.
 */
export async function readReplicaDirectory(path: string): Promise<ReplicaDirectory> {
  const entries = await listDirectory(path)
  const text = await readVolumeText(path)
  const written = parseVolumeText(text, path)
  const volume = written ?? (await recoverVolumeMeta(path, entries))
  if (volume.backingFile !== '') {
    throw new LonghornError('UNSUPPORTED', `${path} lies on backing file ${volume.backingFile}; replicas with a backing file cannot be opened yet`)
  }
  const layers = await readLayers(path, entries)
  const {chain, missing} = await readChain(path, volume, layers)
  const {others, damaged} = splitOthers(layers, chain)
  return {path, volume, recovered: written === undefined, sealed: isSealed(text), chain, missing, others, damaged, entries}
}

/** The volume.meta of a directory; undefined when it is missing or, after a power failure under upstream, empty. */
export async function readVolumeMeta(directory: string): Promise<VolumeMeta | undefined> {
  return parseVolumeText(await readVolumeText(directory), directory)
}

async function readVolumeText(directory: string): Promise<string> {
  return (await readFile(join(directory, VOLUME_META), 'utf8').catch(ignoreMissing)) ?? ''
}

function parseVolumeText(text: string, directory: string): VolumeMeta | undefined {
  return text === '' ? undefined : parseVolumeMeta(text, join(directory, VOLUME_META))
}

/** The names in a directory, sorted. NOT_FOUND when there is no such directory. */
export async function listDirectory(path: string): Promise<string[]> {
  const entries = await readdir(path).catch(ignoreMissing)
  if (entries !== undefined) return entries.sort()
  throw new LonghornError('NOT_FOUND', `replica directory ${path} does not exist`, {directory: path})
}

/** Reads one layer. CORRUPT when its data or its .meta is missing. */
export async function readLayer(directory: string, file: string): Promise<Layer> {
  const metaPath = join(directory, metaFile(file))
  const [text, status] = await Promise.all([readFile(metaPath, 'utf8').catch(ignoreMissing), stat(join(directory, file), {bigint: true}).catch(ignoreMissing)])
  if (text === undefined) throw missingError(directory, metaFile(file))
  const meta = parseLayerMeta(text, metaPath)
  if (status === undefined) throw missingError(directory, file)
  return {
    file,
    meta,
    sizeBytes: Number(status.size),
    allocatedBytes: Number(status.blocks) * 512,
    inode: status.ino,
  }
}

/** All that there are, in the order of their names; of those that cannot be used the CORRUPT error. Throws everything else. */
async function readLayers(directory: string, entries: readonly string[]): Promise<Map<string, Layer | LonghornError>> {
  const found = new Map<string, Layer | LonghornError>()
  const files = entries.filter(isLayerName)
  let next = 0
  const worker = async (): Promise<void> => {
    for (let file = files[next++]; file !== undefined; file = files[next++]) {
      found.set(file, await readLayer(directory, file).catch(corruptOnly))
    }
  }
  await Promise.all(Array.from({length: AT_ONCE}, worker))
  return new Map(files.map(file => [file, found.get(file)!]))
}

async function readChain(directory: string, volume: VolumeMeta, layers: ReadonlyMap<string, Layer | LonghornError>): Promise<{chain: Layer[]; missing: string | undefined}> {
  const chain: Layer[] = []
  const seen = new Set<string>()
  for (let file = volume.head; file !== ''; ) {
    if (seen.has(file)) throw new LonghornError('CORRUPT', `${directory}: ${file} is its own ancestor, the chain of layers is a loop`)
    seen.add(file)
    // What is not in the directory says so itself.
    const layer = layers.get(file) ?? (await readLayer(directory, file).catch(corruptOnly))
    if (layer instanceof LonghornError) {
      if (!volume.rebuilding || chain.length === 0) throw layer
      return {chain: chain.reverse(), missing: file}
    }
    if (layer.sizeBytes > volume.sizeBytes) {
      const sizes = `${layer.sizeBytes} bytes is larger than the volume of ${volume.sizeBytes}`
      throw new LonghornError('CORRUPT', `${join(directory, file)} of ${sizes}: volume.meta or the layer is from another time`)
    }
    chain.push(layer)
    file = layer.meta.parent
  }
  if (chain.length > MAX_LAYERS) throw new LonghornError('UNSUPPORTED', `${directory} has ${chain.length} layers, more than ${MAX_LAYERS}`)
  const [head, ...frozen] = chain
  const alias = frozen.find(layer => layer.inode === head?.inode)
  if (alias !== undefined) {
    throw new LonghornError('CORRUPT', `${directory}: ${head?.file} and ${alias.file} are one file, writing would change the snapshot`)
  }
  return {chain: chain.reverse(), missing: undefined}
}

function splitOthers(layers: ReadonlyMap<string, Layer | LonghornError>, chain: readonly Layer[]): {others: Layer[]; damaged: string[]} {
  const live = new Set(chain.map(layer => layer.file))
  const others: Layer[] = []
  const damaged: string[] = []
  for (const [file, layer] of layers) {
    if (live.has(file)) continue
    if (layer instanceof LonghornError) damaged.push(layer.message)
    else others.push(layer)
  }
  return {others, damaged}
}

/**
 * Puts together the volume.meta that upstream lost to a power failure (it is not synced there).
 * Only where there is no doubt: exactly one head, with a .meta, whose size is that of the volume.
 */
async function recoverVolumeMeta(directory: string, entries: readonly string[]): Promise<VolumeMeta> {
  const heads = entries.filter(file => isHeadName(file) && entries.includes(metaFile(file)))
  const [file] = heads
  if (file === undefined) {
    const hint = entries.length === 0 ? 'it is empty' : 'there is no volume.meta'
    throw new LonghornError('NOT_FOUND', `${directory} does not hold a replica: ${hint}`, {directory})
  }
  if (heads.length > 1) {
    const message = `${directory} has lost its volume.meta and holds several heads (${heads.join(', ')}): cannot tell which is the live one`
    throw new LonghornError('CORRUPT', message, {directory, heads})
  }
  const head = await readLayer(directory, file)
  if (head.sizeBytes === 0 || head.sizeBytes % SECTOR_BYTES !== 0) {
    throw new LonghornError('NOT_FOUND', `${directory} holds a replica whose creation was not finished: create it again`, {directory})
  }
  return {
    sizeBytes: head.sizeBytes,
    head: file,
    dirty: true,
    rebuilding: false,
    error: '',
    parent: head.meta.parent,
    sectorBytes: SECTOR_BYTES,
    backingFile: '',
    encrypted: false,
  }
}

function missingError(directory: string, file: string): LonghornError {
  const message = `${join(directory, file)} is missing, so part of the volume's data is. Rebuild this replica from another one, or put the file back.`
  return new LonghornError('CORRUPT', message, {path: join(directory, file)})
}

function corruptOnly(error: unknown): LonghornError {
  if (!isKind(error, 'CORRUPT')) throw error
  return error
}

function ignoreMissing(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error
}
