import {LonghornError} from '../../lib/errors.js'
import {readReplicaDirectory, type ReplicaDirectory} from '../layer-chain.js'
import {writeLayerMeta} from '../layer-meta-file.js'
import {openLayerStack} from '../layer-stack.js'
import {isHeadName} from '../layer-names.js'
import type {ReplicaVolume} from '../replica-volume.js'
import type {LayerDescription} from './layer-description.js'
import type {Rebuild} from './rebuild.js'

/**
 * Makes a whole replica of one whose layers have all been fetched. `layers`: all frozen ones, as the others describe them now.
 * CONFLICT when they are not what is here; the rebuild then has to be begun again.
 */
export async function finishRebuild(volume: ReplicaVolume, rebuild: Rebuild, layers: readonly LayerDescription[]): Promise<void> {
  const {path} = volume.directory
  const {state, error} = rebuild.status
  if (state !== 'complete') throw new LonghornError('CONFLICT', `the rebuild in ${path} is not complete${error === '' ? '' : `: ${error}`}`)
  const found = await readReplicaDirectory(path)
  checkSame(found, layers)
  const present = new Map([...found.chain, ...found.others].map(layer => [layer.file, layer.meta]))
  for (const {file, meta} of layers) {
    const before = present.get(file)!
    if (before.removed === meta.removed && before.userCreated === meta.userCreated && before.created === meta.created) continue
    await writeLayerMeta(path, file, {...meta, name: before.name}, volume.disk)
  }
  const directory = await readReplicaDirectory(path)
  const above = volume.directory.chain.length
  const base = await openLayerStack(path, directory.chain.slice(0, -above), volume.sizeBytes, {writable: false})
  await volume.complete(base, {...directory, volume: {...directory.volume, rebuilding: false}})
}

function checkSame({path, chain, others, missing}: ReplicaDirectory, layers: readonly LayerDescription[]): void {
  const refuse = (why: string): LonghornError => new LonghornError('CONFLICT', `${path} is not what the other replicas are: ${why}`)
  if (missing !== undefined) throw refuse(`it lacks ${missing}`)
  const ours = new Map([...chain.slice(0, -1), ...others.filter(layer => !isHeadName(layer.file))].map(layer => [layer.file, layer]))
  for (const {file, meta} of layers) {
    const layer = ours.get(file)
    if (layer === undefined) throw refuse(`it lacks ${file}`)
    if (layer.meta.parent !== meta.parent) throw refuse(`${file} stands on ${layer.meta.parent || 'nothing'}, not on ${meta.parent || 'nothing'}`)
  }
  if (ours.size !== layers.length) throw refuse(`it has ${ours.size} layers, not ${layers.length}`)
}
