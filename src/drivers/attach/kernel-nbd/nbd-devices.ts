// NBD devices: what /sys shows of them, and what can be done to them.
import {readdir} from 'node:fs/promises'
import {setTimeout as sleep} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import {LonghornError} from '../../../lib/errors.js'
import type {BlockNode} from '../attach-way.js'
import {readLine} from '../block-node.js'
import {runCommand, tryCommand} from '../run-command.js'

/** A device that has a server, or had one and still waits for it. */
export interface BoundNbd extends BlockNode {
  readonly index: number
  /** Which attachment it belongs to. */
  readonly backend: string
  readonly sizeBytes: number
}

const CONTROL = fileURLToPath(new URL('control-main.js', import.meta.url))
/** A request that is being sent to a server that reads nothing gives up when its own time is up. */
const CONTROL_TIMEOUT_MS = 60_000
/** A prober (udev's blkid) that looks at a device because it has changed is gone after this. */
const GONE_TIMEOUT_MS = 2000
const POLL_MS = 20
const SECTOR_BYTES = 512
/** Exit code of control-main.ts. */
const BUSY = new LonghornError('BUSY', '').exitCode

/** The devices whose backend is one of these. */
export async function findNbdDevices(backends: readonly string[]): Promise<BoundNbd[]> {
  const found = await Promise.all((await nbdNames()).map(readDevice))
  return found.filter(device => device !== undefined).filter(({backend}) => backends.includes(backend))
}

/**
 * Takes the server away from a device. False when somebody has it open: it then gives errors, and goes with the last of them.
 * Throws BUSY, having done nothing, when it is mounted or the like and not `force`.
 */
export async function disconnectNbd(device: BoundNbd, {force}: {readonly force: boolean}): Promise<boolean> {
  const args = ['disconnect', `${device.index}`, ...(force ? [] : ['exclusive'])]
  const {ok, exitCode, stderr} = await tryCommand(process.execPath, [CONTROL, ...args], {timeoutMs: CONTROL_TIMEOUT_MS})
  if (!ok) throw new LonghornError(exitCode === BUSY ? 'BUSY' : 'IO', `${device.name} cannot be disconnected: ${stderr}`, {node: device.name})
  for (const deadline = performance.now() + GONE_TIMEOUT_MS; performance.now() < deadline; await sleep(POLL_MS)) {
    if ((await findNbdDevices([device.backend])).length === 0) return true
  }
  return false
}

/** Makes a device larger, in use or not. */
export async function resizeNbd({index, backend}: BoundNbd, sizeBytes: number, signal: AbortSignal): Promise<void> {
  await runCommand(process.execPath, [CONTROL, 'resize', `${index}`, backend, `${sizeBytes}`], {timeoutMs: CONTROL_TIMEOUT_MS, signal})
}

async function nbdNames(): Promise<string[]> {
  return (await readdir('/sys/block')).filter(name => /^nbd\d+$/.test(name))
}

/** Undefined when it has no server, or one that someone else has given it. */
async function readDevice(name: string): Promise<BoundNbd | undefined> {
  const backend = await readLine(`/sys/block/${name}/backend`)
  const [major, minor] = ((await readLine(`/sys/block/${name}/dev`)) ?? '').split(':').map(Number)
  const sectors = await readLine(`/sys/block/${name}/size`)
  if (backend === undefined || backend === '' || major === undefined || minor === undefined) return undefined
  return {name, major, minor, index: Number(name.slice('nbd'.length)), backend, sizeBytes: Number(sectors) * SECTOR_BYTES}
}
