// What happens to those who use a device that is about to go.
import {existsSync} from 'node:fs'
import {setTimeout as sleep} from 'node:timers/promises'
import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import type {BlockNode, Condition} from './attach-way.js'
import {findUsers, type DeviceUser} from './device-users.js'
import {tryCommand} from './run-command.js'

const FLUSH_TIMEOUT_MS = 30_000
const UMOUNT_TIMEOUT_MS = 3000
/** A prober (udev's blkid) that looks at a new device is gone after this. */
const OPENER_GRACE_MS = 1000
const OPENER_POLL_MS = 50

/** A device that exists, working or not. */
export type FoundDevice = Exclude<Condition, {state: 'gone'}> & {readonly node: BlockNode}

export interface Released {
  /** Mount points that were taken away. */
  readonly unmounted: readonly string[]
  readonly warnings: readonly string[]
}

export function isFound(condition: Condition): condition is FoundDevice {
  return condition.state !== 'gone' && condition.node !== undefined
}

/**
 * Makes sure that nobody uses a device. Throws BUSY, naming the users, when somebody does. With `force` its file systems are
 * written back as far as they let themselves and are unmounted lazily; other users get errors later on.
 */
export async function releaseUsers(volume: string, device: FoundDevice, paths: readonly string[], force: boolean): Promise<Released> {
  const users = await lastingUsers(device.node, paths)
  if (users.length > 0 && !force) {
    const who = users.map(({description}) => description).join(', ')
    throw new LonghornError('BUSY', `volume ${volume} is ${who}: unmount it and end what uses it, or detach it by force`, {users})
  }
  const unmounted: string[] = []
  const warnings = users.filter(({kind}) => kind !== 'mount').map(({description}) => `volume ${volume} was still ${description}`)
  for (const {mountPoint} of users.toReversed()) {
    if (mountPoint === undefined) continue
    // What its users have written so far; they may go on writing after this, in vain.
    if (device.state === 'up') warnings.push(...(await flush(`file system at ${mountPoint}`, ['--file-system', mountPoint], force)))
    await unmountLazily(mountPoint)
    unmounted.push(mountPoint)
  }
  return {unmounted, warnings}
}

/**
 * Writes the device's cache back and sends a flush, through whichever of its nodes exists. Throws IO or TIMEOUT when a device that works cannot do that;
 * with `force` that is a warning.
 */
export async function flushDevice(volume: string, device: FoundDevice, paths: readonly string[], force: boolean): Promise<readonly string[]> {
  // There is nothing to be saved: what was not written has already failed.
  if (device.state === 'down') return [`volume ${volume} was not flushed: ${device.reason}`]
  const path = paths.find(existsSync)
  return path === undefined ? [`volume ${volume} was not flushed: none of ${paths.join(', ')} exists`] : flush(`volume ${volume}`, [path], force)
}

/** Users that do not go away by themselves within a moment. */
async function lastingUsers(node: BlockNode, paths: readonly string[]): Promise<DeviceUser[]> {
  for (const deadline = performance.now() + OPENER_GRACE_MS; ; await sleep(OPENER_POLL_MS)) {
    const users = await findUsers(node, paths)
    if (users.some(({kind}) => kind !== 'process') || users.length === 0 || performance.now() > deadline) return users
  }
}

/** `args` of sync(1) say of what. */
async function flush(what: string, args: readonly string[], force: boolean): Promise<string[]> {
  try {
    const {ok, stderr} = await tryCommand('sync', args, {timeoutMs: FLUSH_TIMEOUT_MS})
    if (ok) return []
    throw new LonghornError('IO', `${what} cannot be flushed: ${stderr}`)
  } catch (error) {
    if (!force) throw error
    return [messageOf(error)]
  }
}

/** A dead volume can hold the program up in the kernel after the mount has been taken out of the tree; it is not waited for. */
async function unmountLazily(mountPoint: string): Promise<void> {
  try {
    const {ok, stderr} = await tryCommand('umount', ['--lazy', '--no-canonicalize', '--internal-only', mountPoint], {timeoutMs: UMOUNT_TIMEOUT_MS})
    if (!ok) throw new LonghornError('IO', `cannot unmount ${mountPoint}: ${stderr}`)
  } catch (error) {
    if (!isKind(error, 'TIMEOUT')) throw error
  }
}
