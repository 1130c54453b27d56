import {readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import {realDisk} from '../../../src/replica/disk-steps.js'
import {formatLayerMeta, newHeadMeta, parseLayerMeta} from '../../../src/replica/layer-meta.js'
import {formatVolumeMeta, parseVolumeMeta} from '../../../src/replica/volume-meta.js'

/** Turns the head of a closed replica into snapshot `name` and puts a new head on top, with nothing but file operations. */
export async function freezeHead(directory: string, name: string): Promise<string> {
  const path = (file: string): string => join(directory, file)
  const volume = parseVolumeMeta(readFileSync(path('volume.meta'), 'utf8'), 'volume.meta')
  const snapshot = `volume-snap-${name}.img`
  const number = Number(/\d+/.exec(volume.head)?.[0]) + 1
  const head = `volume-head-${`${number}`.padStart(3, '0')}.img`
  const meta = parseLayerMeta(readFileSync(path(`${volume.head}.meta`), 'utf8'), 'meta')
  renameSync(path(volume.head), path(snapshot))
  writeFileSync(path(`${snapshot}.meta`), formatLayerMeta({...meta, userCreated: true}))
  rmSync(path(`${volume.head}.meta`))
  await realDisk.createSparse(path(head), volume.sizeBytes, 0o644)
  writeFileSync(path(`${head}.meta`), formatLayerMeta(newHeadMeta(head, snapshot)))
  writeFileSync(path('volume.meta'), formatVolumeMeta({...volume, head, parent: snapshot}))
  return snapshot
}
