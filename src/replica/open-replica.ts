import {Cleanup} from '../lib/cleanup.js'
import {LonghornError} from '../lib/errors.js'
import {readAtomicJournal} from './atomic-journal.js'
import {DirectoryLock} from './directory-lock.js'
import {realDisk, type DiskSteps} from './disk-steps.js'
import {readReplicaDirectory, type Layer, type ReplicaDirectory} from './layer-chain.js'
import {LayerReader} from './layer-reader.js'
import {openLayerStack} from './layer-stack.js'
import {findLeftovers, removeLeftovers} from './leftovers.js'
import {ReplicaVolume} from './replica-volume.js'
import {RevisionCounter} from './revision-counter.js'
import {DOUBTFUL_LAYERS, dropTornWrites} from './torn-writes.js'
import {markDirty} from './volume-meta-file.js'

export interface OpenOptions {
  /** Keep up upstream's revision counter when there is one. True by default. */
  readonly revisionCounter?: boolean
  /** The lock of the directory, where the caller has it already and keeps it. */
  readonly lock?: DirectoryLock | undefined
  readonly disk?: DiskSteps
}

/**
 * Opens an existing replica for I/O: takes the lock of the directory, checks the chain, removes what interrupted operations
 * left behind, finds out who holds each block, and records durably that the replica is dirty before anything is written.
 * Close it to make it clean again.
 *
 * NOT_FOUND when there is no replica, BUSY when someone has it open, CORRUPT when it is not whole, UNSUPPORTED for what we
 * cannot use (a backing file, a file system without holes). A replica whose volume.meta records an error or
 * a rebuild opens; whoever opens it decides what that means.
 */
export async function openReplica(directory: string, options: OpenOptions = {}): Promise<ReplicaVolume> {
  const {disk = realDisk, revisionCounter = true} = options
  await using undo = new Cleanup()
  const lock = options.lock ?? undo.add(new DirectoryLock(directory))
  let found = await readReplicaDirectory(directory)
  checkWhole(found)
  const leftovers = await findLeftovers(found)
  if (leftovers.length > 0) {
    await removeLeftovers(directory, leftovers, disk)
    found = await readReplicaDirectory(directory)
  }
  const counter = revisionCounter ? RevisionCounter.open(directory) : undefined
  if (counter !== undefined) undo.add(counter)
  const volume = {...found.volume, dirty: true, parent: headOf(found).meta.parent}
  const settled = !found.volume.dirty || (await dropTornWrites(directory, found.chain))
  const stackOptions = {writable: true, incomplete: volume.rebuilding, doubtful: settled ? 0 : DOUBTFUL_LAYERS}
  const stack = undo.add(await openLayerStack(directory, found.chain, volume.sizeBytes, stackOptions))
  const interrupted = found.volume.dirty ? await readAtomicJournal(directory) : undefined
  // Before volume.meta is written: a journal from before that does not count. The replica is dirty already.
  const opened = new ReplicaVolume({directory: {...found, volume}, leftovers, lock, stack, counter, disk, staysDirty: !settled, owner: undo.move()})
  try {
    if (interrupted !== undefined) await opened.finishAtomicWrite(interrupted)
    await markDirty(directory, volume, disk)
  } catch (error) {
    await opened.abandon()
    throw error
  }
  return opened
}

/** A volume that is only read. Offsets and lengths are bytes; see LayerReader for what each method promises. */
export interface VolumeView extends AsyncDisposable {
  readonly sizeBytes: number
  readonly reader: LayerReader
  close(): Promise<void>
}

/**
 * Opens the volume as it was when `layer` (a file name, e.g. `volume-snap-a.img`) was frozen, or the whole of it; `alone`: that layer
 * without what lies below it. Changes nothing and takes no lock, so that it can be had beside the open replica. The layers must not be purged meanwhile.
 * NOT_FOUND when there is no such layer, also in other branches.
 */
export async function openVolumeView(directory: string, layer?: string, {alone = false} = {}): Promise<VolumeView> {
  const found = await readReplicaDirectory(directory)
  if (layer === undefined) checkWhole(found)
  const whole = layer === undefined ? found.chain : chainUpTo(found, layer)
  const chain = alone ? whole.slice(-1) : whole
  // Before an expansion the volume was as large as its newest layer is.
  const sizeBytes = layer === undefined ? found.volume.sizeBytes : (chain.at(-1)?.sizeBytes ?? 0)
  // Nobody may have looked after it since a power cut. A layer alone is told to the last extent.
  const unsure = found.volume.dirty && !alone ? found.chain.slice(-DOUBTFUL_LAYERS) : []
  const stack = await openLayerStack(directory, chain, sizeBytes, {writable: false, doubtful: chain.filter(one => unsure.includes(one)).length})
  const reader = new LayerReader(stack)
  const close = async (): Promise<void> => {
    await reader.idle()
    stack.close()
  }
  return {sizeBytes: stack.sizeBytes, reader, close, [Symbol.asyncDispose]: close}
}

function checkWhole({path, missing}: ReplicaDirectory): void {
  if (missing === undefined) return
  throw new LonghornError('CORRUPT', `${path} lacks ${missing}: its rebuild was not finished; add the replica to its volume again`, {layer: missing})
}

/** The layers from the oldest up to `layer`, which may lie outside the live chain. */
function chainUpTo(directory: ReplicaDirectory, layer: string): Layer[] {
  const layers = new Map([...directory.chain, ...directory.others].map(known => [known.file, known]))
  const chain: Layer[] = []
  for (let file = layer; file !== ''; ) {
    const next = layers.get(file)
    if (next === undefined) throw new LonghornError('NOT_FOUND', `${directory.path} holds no layer ${file}`, {layer: file})
    if (chain.includes(next)) throw new LonghornError('CORRUPT', `${directory.path}: ${file} is its own ancestor, the chain of layers is a loop`)
    chain.push(next)
    file = next.meta.parent
  }
  return chain.reverse()
}

function headOf(directory: ReplicaDirectory): Layer {
  const head = directory.chain.at(-1)
  if (head === undefined) throw new Error('a chain has at least one layer')
  return head
}
