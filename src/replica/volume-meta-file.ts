import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, isKind} from '../lib/errors.js'
import {realDisk, type DiskSteps} from './disk-steps.js'
import {replaceFile} from './durable-file.js'
import {ioFailure} from './io-failure.js'
import {VOLUME_META} from './layer-names.js'
import {isSealed, sealedVolumeMeta, type VolumeMeta} from './volume-meta.js'

const CLEAN = '"Dirty":false'
const DIRTY = '"Dirty":true '

/** Replaces volume.meta durably. NO_SPACE on a full disk, where the old one then still is. */
export async function writeVolumeMeta(directory: string, meta: VolumeMeta, disk: DiskSteps = realDisk): Promise<void> {
  const path = join(directory, VOLUME_META)
  try {
    await replaceFile(path, sealedVolumeMeta(meta), 0o644, disk)
  } catch (error) {
    throw ioFailure(`writing ${path}`, error)
  }
}

/**
 * Records durably that the replica is open. A full disk must not keep anyone from opening a replica to read it, or to
 * delete what fills the disk; a new file has no room there, so nothing is written when the file says it all already, and otherwise
 * the flag alone is changed in place: five bytes in one sector, and a space is as good JSON as none.
 */
export async function markDirty(directory: string, meta: VolumeMeta, disk: DiskSteps = realDisk): Promise<void> {
  const path = join(directory, VOLUME_META)
  const dirty = sealedVolumeMeta({...meta, dirty: true})
  const clean = sealedVolumeMeta({...meta, dirty: false})
  const found = await readFile(path, 'utf8').catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error
    return ''
  })
  if (found === dirty || found === clean.replace(CLEAN, DIRTY)) return
  try {
    await writeVolumeMeta(directory, {...meta, dirty: true}, disk)
  } catch (error) {
    if (!isKind(error, 'NO_SPACE')) throw error
    const sealed = isSealed(found) ? found : found.replace(/\n$/, ' \n')
    if (sealed === dirty || sealed === clean.replace(CLEAN, DIRTY)) return
    if (sealed !== clean) throw error
    await disk.patchSynced(path, DIRTY, Buffer.byteLength(found.slice(0, found.indexOf(CLEAN))))
  }
}
