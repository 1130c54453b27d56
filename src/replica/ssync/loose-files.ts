import {access} from 'node:fs/promises'
import {join} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {toFileName} from '../../protocol/grpc/fields.js'
import {realDisk} from '../disk-steps.js'
import {ioFailure} from '../io-failure.js'
import type {Replica} from '../replica.js'

/** Names of files that transfers and restores leave or make; a head, volume.meta and what is ours are not among them. */
const LOOSE = /^volume-(snap|delta)-[^/\0]+\.img(\.snap_tmp)?(\.meta|\.checksum)?(\.tmp)?$/

/** Removes a file that is not part of the replica. NOT_FOUND when it is not there, CONFLICT when it is part of it. */
export function removeLooseFile(replica: Replica, name: string): Promise<void> {
  return replica.exclusive(async () => {
    const path = await loosePath(replica, name, 'FileRemove: file_name')
    if (!(await isThere(path))) throw new LonghornError('NOT_FOUND', `${path} does not exist`)
    await changing(path, async () => {
      await realDisk.remove(path)
      await realDisk.syncDirectory(replica.directory)
    })
  })
}

/** Gives a file that is not part of the replica another name, which must be free. Errors as those of removeLooseFile(). */
export function renameLooseFile(replica: Replica, from: string, to: string): Promise<void> {
  return replica.exclusive(async () => {
    const source = await loosePath(replica, from, 'FileRename: old_file_name')
    const target = await loosePath(replica, to, 'FileRename: new_file_name')
    if (!(await isThere(source))) throw new LonghornError('NOT_FOUND', `${source} does not exist`)
    if (await isThere(target)) throw new LonghornError('CONFLICT', `${target} exists already`)
    await changing(source, async () => {
      await realDisk.rename(source, target)
      await realDisk.syncDirectory(replica.directory)
    })
  })
}

async function loosePath(replica: Replica, name: string, what: string): Promise<string> {
  toFileName(name, what)
  if (!LOOSE.test(name)) throw new LonghornError('USAGE', `${what} is ${JSON.stringify(name.slice(0, 64))}: only what belongs to snapshots can be removed or renamed`)
  const {directory} = await replica.describe()
  const layers = [...(directory?.chain ?? []), ...(directory?.others ?? [])]
  if (layers.some(({file}) => name === file || name === `${file}.meta`)) throw new LonghornError('CONFLICT', `${what} is ${name}, which is part of the replica`)
  return join(replica.directory, name)
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}

async function changing(path: string, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    throw ioFailure(`removing or renaming ${path}`, error)
  }
}
