import {readdir} from 'node:fs/promises'
import {basename, join} from 'node:path'
import {errnoOf} from '../../../lib/errors.js'
import type {Slot} from '../attach-way.js'
import {readMounts} from '../mount-table.js'
import type {ProcessId} from '../process-identity.js'
import {findLoops, type LoopDevice} from './loop-device.js'
import {findNbdfuse, type NbdfuseFiles} from './nbdfuse.js'

const ID = /^[0-9a-f]{16}$/

/** What exists of one attachment at this moment. */
export interface FuseParts {
  readonly loops: readonly LoopDevice[]
  readonly processes: readonly ProcessId[]
  /** Mount points of ours that have something mounted; one that was mounted twice is here twice. */
  readonly mounts: readonly string[]
}

/**
 * Finds them all: also those of which a killed process left no note, and several of a kind.
 * Everything of ours bears the slot's random id in a name that the kernel shows; nothing else is taken.
 */
export async function findParts(slot: Slot): Promise<FuseParts> {
  const ids = await idsOf(slot)
  const loops = await findLoops(({backingFile}) => ids.some(id => basename(backingFile) === fileNameOf(slot, id)))
  const processes = ids.flatMap(id => findNbdfuse(filesOf(slot, id).file))
  return {loops, processes, mounts: await findMounts(slot)}
}

/** What is mounted on mount points of ours, from the table of mounts. */
export async function findMounts(slot: Slot): Promise<string[]> {
  const points = new Map((await idsOf(slot)).map(id => [mountPointOf(slot, id), sourceOf(slot, id)]))
  const ours = (await readMounts()).filter(
    ({mountPoint, fileSystem, source}) => points.get(mountPoint) === source && /^fuse(\.|$)/.test(fileSystem),
  )
  return ours.map(({mountPoint}) => mountPoint)
}

/** The mount point is called like the id, so that the id is not lost with the record. */
export function mountPointOf(slot: Slot, id: string): string {
  return join(slot.directory, id)
}

export function filesOf(slot: Slot, id: string): NbdfuseFiles {
  return {
    file: join(mountPointOf(slot, id), fileNameOf(slot, id)),
    pidFile: join(slot.directory, 'nbdfuse.pid'),
    log: logOf(slot),
  }
}

export function logOf(slot: Slot): string {
  return join(slot.directory, 'nbdfuse.log')
}

/** How the mount is called in the table of mounts. */
export function sourceOf(slot: Slot, id: string): string {
  return `longhorn:${slot.volume}:${id}`
}

/** Shown as the backing file of the loop device. */
function fileNameOf(slot: Slot, id: string): string {
  return `${slot.volume}.${id}`
}

async function idsOf(slot: Slot): Promise<string[]> {
  try {
    const names = await readdir(slot.directory)
    return [...new Set([...names.filter(name => ID.test(name)), ...(slot.id === undefined ? [] : [slot.id])])]
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return []
    throw error
  }
}
