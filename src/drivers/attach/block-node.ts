// Block devices as the kernel names them, and the device nodes that give them another name.
import {lstat, mkdir, readFile, unlink} from 'node:fs/promises'
import {dirname} from 'node:path'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import type {BlockNode} from './attach-way.js'
import {runCommand} from './run-command.js'

const MKNOD_TIMEOUT_MS = 5000
const SECTOR_BYTES = 512

export type DeviceNumber = Pick<BlockNode, 'major' | 'minor'>

/** What is at the path of a device node: nothing, a block device, or something else. */
export type NodeAt = {readonly kind: 'nothing'} | ({readonly kind: 'block'} & DeviceNumber) | {readonly kind: 'other'}

export function sameDevice(a: DeviceNumber, b: DeviceNumber): boolean {
  return a.major === b.major && a.minor === b.minor
}

/** The present size of a block device in bytes; undefined when there is no such device. */
export async function deviceSize({major, minor}: DeviceNumber): Promise<number | undefined> {
  const sectors = await readLine(`/sys/dev/block/${major}:${minor}/size`)
  return sectors === undefined ? undefined : Number(sectors) * SECTOR_BYTES
}

export async function nodeAt(path: string): Promise<NodeAt> {
  try {
    const stat = await lstat(path)
    if (!stat.isBlockDevice()) return {kind: 'other'}
    return {kind: 'block', ...deviceNumber(stat.rdev)}
  } catch (error) {
    if (isAbsent(error)) return {kind: 'nothing'}
    throw error
  }
}

/** Throws CONFLICT when there is something at `path` that could mean something to somebody. */
export async function clearNode(path: string): Promise<void> {
  await removeDeadNode(path)
  if ((await nodeAt(path)).kind === 'nothing') return
  throw new LonghornError('CONFLICT', `${path} exists and is not ours: remove it if nothing uses it`, {path})
}

/** Removes the device node at `path` if it is for a block device that does not exist (any more). */
export async function removeDeadNode(path: string): Promise<void> {
  const found = await nodeAt(path)
  if (found.kind === 'block' && !(await deviceSize(found))) await unlink(path)
}

/** Removes the device node at `path`, whatever device it is for. */
export async function removeBlockNode(path: string): Promise<void> {
  if ((await nodeAt(path)).kind === 'block') await unlink(path)
}

/** Makes `path` a device node for this device, mode 0660 as upstream's; fine if it is one already. Throws CONFLICT. */
export async function makeNode(path: string, node: DeviceNumber): Promise<void> {
  const found = await nodeAt(path)
  if (found.kind === 'block' && sameDevice(found, node)) return
  await clearNode(path)
  await mkdir(dirname(path), {recursive: true, mode: 0o755})
  await runCommand('mknod', ['-m', '0660', path, 'b', `${node.major}`, `${node.minor}`], {timeoutMs: MKNOD_TIMEOUT_MS})
}

/** Removes the device node at `path` if it is for one of these devices. */
export async function removeNode(path: string, nodes: readonly DeviceNumber[]): Promise<void> {
  const found = await nodeAt(path)
  if (found.kind === 'block' && nodes.some(node => sameDevice(node, found))) await unlink(path)
}

/** The only line of a small file in /sys or /proc; undefined when the file is not there (any more). */
export async function readLine(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'utf8')).replace(/\n$/, '')
  } catch (error) {
    // ENXIO and ENODEV: the device went away between open and read.
    if (isAbsent(error) || errnoOf(error) === 'ENXIO' || errnoOf(error) === 'ENODEV') return undefined
    throw error
  }
}

function isAbsent(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR'
}

/** dev_t as the C library packs it: minor bits 0-7, major bits 8-19, minor again from bit 20. */
export function deviceNumber(rdev: number): DeviceNumber {
  return {major: Math.floor(rdev / 0x100) % 0x1000, minor: (rdev % 0x100) + Math.floor(rdev / 0x10_0000) * 0x100}
}
