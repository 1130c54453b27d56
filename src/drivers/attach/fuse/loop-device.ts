// Loop devices. What is known of them comes from /sys: `losetup -a`, `-l` and `-j` ask the kernel for the backing
// file's attributes, and on a FUSE file whose server hangs that question does not come back.
import {readdir} from 'node:fs/promises'
import {basename} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {isKind, LonghornError} from '../../../lib/errors.js'
import type {BlockNode} from '../attach-way.js'
import {deviceSize, nodeAt, readLine} from '../block-node.js'
import {runCommand, tryCommand, type CommandLimits} from '../run-command.js'

const LOSETUP_TIMEOUT_MS = 10_000
const POLL_MS = 10
/** Someone else may take the free device that we were told of. */
const TRIES = 20

/** A loop device that is bound to a file. */
export interface LoopDevice extends BlockNode {
  /** Its path; only its last part when the mount that it is in has been taken out of the tree. */
  readonly backingFile: string
}

export interface LoopOptions {
  readonly readOnly: boolean
  /** The device ends here even if the file is larger. */
  readonly sizeBytes: number | undefined
}

/** Binds a free loop device to a file, with direct I/O: the volume's data is then not cached once more in front of it. */
export async function bindLoop(file: string, {readOnly, sizeBytes}: LoopOptions, signal: AbortSignal): Promise<LoopDevice> {
  const options = ['--direct-io=on', '--sector-size', '512']
  if (readOnly) options.push('--read-only')
  if (sizeBytes !== undefined) options.push('--sizelimit', `${sizeBytes}`)
  for (let left = TRIES; ; left--) {
    const name = await freeLoop({timeoutMs: LOSETUP_TIMEOUT_MS, signal})
    const {ok, stderr} = await tryCommand('losetup', [...options, `/dev/${name}`, file], {timeoutMs: LOSETUP_TIMEOUT_MS, signal})
    const bound = await readLoop(name)
    if (ok && bound !== undefined) return bound
    // When it failed and the device is bound all the same, someone else was faster.
    if (ok || bound === undefined || left === 0) throw new LonghornError('IO', `cannot bind ${name} to ${file}: ${stderr}`, {file})
  }
}

/** The loop devices for which `isOurs` holds. */
export async function findLoops(isOurs: (loop: LoopDevice) => boolean): Promise<LoopDevice[]> {
  const names = (await readdir('/sys/block')).filter(name => name.startsWith('loop'))
  const loops = await Promise.all(names.map(readLoop))
  return loops.filter(loop => loop !== undefined).filter(isOurs)
}

/**
 * Asks for a device to be released and waits for it. False when it still has users, or when its I/O hangs: the kernel then
 * releases it by itself with the last of them.
 */
export async function releaseLoop(loop: LoopDevice, timeoutMs: number): Promise<boolean> {
  try {
    await provideNode(loop.name, {timeoutMs})
    await tryCommand('losetup', ['--detach', `/dev/${loop.name}`], {timeoutMs})
  } catch (error) {
    if (!isKind(error, 'TIMEOUT')) throw error
  }
  return waitForRelease(loop, timeoutMs)
}

/** False when it is still bound to this file after `timeoutMs`. */
export async function waitForRelease(loop: LoopDevice, timeoutMs: number): Promise<boolean> {
  for (const deadline = performance.now() + timeoutMs; await isBound(loop); await sleep(POLL_MS)) {
    if (performance.now() > deadline) return false
  }
  return true
}

/** The path is not compared, as it gets shorter with a lazy unmount; names of our files are unique. */
async function isBound(loop: LoopDevice): Promise<boolean> {
  const now = await readLoop(loop.name)
  return now !== undefined && basename(now.backingFile) === basename(loop.backingFile)
}

/** True when it goes away with its last user, because somebody has asked for its release. */
export async function isBeingReleased({name}: BlockNode): Promise<boolean> {
  return (await readLine(`/sys/block/${name}/loop/autoclear`)) === '1'
}

/** Makes the device end at `sizeBytes` of its file. Throws IO when the kernel refuses. */
export async function resizeLoop(loop: LoopDevice, sizeBytes: number, signal: AbortSignal): Promise<void> {
  const program = new URL('loop-size-main.js', import.meta.url).pathname
  await runCommand(process.execPath, [program, loop.name, `${sizeBytes}`], {timeoutMs: LOSETUP_TIMEOUT_MS, signal})
  const size = await deviceSize(loop)
  if (size !== sizeBytes) throw new LonghornError('IO', `${loop.name} has ${size} bytes instead of ${sizeBytes} after resizing`)
}

/** Undefined when it is bound to nothing. */
async function readLoop(name: string): Promise<LoopDevice | undefined> {
  const backingFile = await readLine(`/sys/block/${name}/loop/backing_file`)
  const [major, minor] = ((await readLine(`/sys/block/${name}/dev`)) ?? '').split(':').map(Number)
  return backingFile === undefined || major === undefined || minor === undefined ? undefined : {name, major, minor, backingFile}
}

/** The name of a loop device that is free now. */
async function freeLoop(limits: CommandLimits): Promise<string> {
  const name = basename(await runCommand('losetup', ['--find'], limits))
  await provideNode(name, limits)
  return name
}

/** In a container /dev is a copy of the host's at best: the nodes of loop devices that are new may be missing. */
async function provideNode(name: string, limits: CommandLimits): Promise<void> {
  const path = `/dev/${name}`
  const [major = '', minor = ''] = ((await readLine(`/sys/block/${name}/dev`)) ?? '').split(':')
  if ((await nodeAt(path)).kind === 'nothing') await tryCommand('mknod', ['-m', '0660', path, 'b', major, minor], limits)
}
