// Attaching without a kernel module: nbdfuse shows the export as a file in a private mount, and a loop device makes a
// block device of the file. What happens to a request:
//
//     /dev/longhorn/VOL = /dev/loopN ── direct I/O ──> DIR/ID/VOL.ID (FUSE) ──> nbdfuse ── NBD ──> engine
//
// - A flush (REQ_OP_FLUSH, from fsync, sync, a journal commit) becomes fsync of the file and then NBD_CMD_FLUSH. A write
//   with FUA becomes a write and a flush.
// - Discard becomes a hole in the file and then NBD_CMD_TRIM. So does write-zeroes when it may free space: the loop driver has
//   no other word for it. It relies on reading zeros afterwards, hence the demand on `trim` below.
//   Write-zeroes that must not free space arrives as NBD_CMD_WRITE_ZEROES; if the export lacks it nbdfuse writes zeros itself,
//   but all to the first 4 KiB (seen in libnbd 1.14), so that such an export is refused.
// - nbdfuse learns the size once. A device can only grow if it was made smaller than its export.
// - A dead server means I/O errors on the device, at once and for good: nbdfuse does not connect again. (Often it aborts then,
//   with an assertion about in_flight in its log. That is a bug of its, and the end is the same.)
import {constants} from 'node:fs'
import {mkdir, open} from 'node:fs/promises'
import {setTimeout as sleep} from 'node:timers/promises'
import {errnoOf, isKind, LonghornError, messageOf} from '../../../lib/errors.js'
import type {AttachRequest, AttachWay, Availability, BlockNode, Condition, NbdEndpoint, Slot} from '../attach-way.js'
import {queryExport} from '../nbd-export.js'
import type {NbdExport} from '../nbd-negotiation.js'
import {signalProcess, waitForExit, type ProcessId} from '../process-identity.js'
import {isInstalled, tryCommand} from '../run-command.js'
import {filesOf, findMounts, findParts, logOf, mountPointOf, sourceOf} from './fuse-parts.js'
import {bindLoop, isBeingReleased, releaseLoop, resizeLoop, waitForRelease} from './loop-device.js'
import {logTail, startNbdfuse, waitForMount} from './nbdfuse.js'

const QUERY_TIMEOUT_MS = 10_000
const MOUNT_TIMEOUT_MS = 15_000
const UMOUNT_TIMEOUT_MS = 5000
/** For users that come and go by themselves, as udev's prober does. */
const RELEASE_TIMEOUT_MS = 5000
/** nbdfuse ends by itself when its mount is gone; it gives requests in flight 5 s. */
const EXIT_TIMEOUT_MS = 6000
/** How long to wait for what should happen at once. */
const PROMPT_MS = 2000
const UMOUNT_RETRY_MS = 50

/** Programs that are called, and the Debian packages that have them. */
const PROGRAMS = {
  nbdfuse: 'libnbd-bin (Fedora: nbdfuse)',
  losetup: 'mount (Fedora: util-linux)',
  umount: 'mount (Fedora: util-linux)',
  mknod: 'coreutils',
  dd: 'coreutils',
}

const DEVICES = {
  '/dev/fuse': 'load the kernel module fuse ("modprobe fuse"), or give the container this device',
  '/dev/loop-control': 'load the kernel module loop ("modprobe loop"), or give the container this device',
}

export interface FuseWayOptions {
  /**
   * NBD connections per volume, if the server allows several. One is the fastest for small requests: nbdfuse then wakes
   * up one thread instead of many, and both ends find several requests at each wake-up.
   */
  readonly connections?: number
  /** A device that does not answer a read for this long counts as dead. Default 5000. */
  readonly probeTimeoutMs?: number
}

export class FuseWay implements AttachWay {
  readonly name = 'fuse'
  readonly takes = 'nbd'
  readonly zeroesByTrim = true
  readonly #connections: number
  readonly #probeTimeoutMs: number

  constructor({connections = 1, probeTimeoutMs = 5000}: FuseWayOptions = {}) {
    this.#connections = connections
    this.#probeTimeoutMs = probeTimeoutMs
  }

  async available(): Promise<Availability> {
    if (process.geteuid?.() !== 0) return {ok: false, reason: 'making block devices needs root'}
    for (const [device, advice] of Object.entries(DEVICES)) {
      const problem = await openProblem(device)
      if (problem !== undefined) return {ok: false, reason: `${device}: ${problem}; ${advice}`}
    }
    for (const [program, packages] of Object.entries(PROGRAMS)) {
      if (!(await isInstalled(program))) return {ok: false, reason: `${program} is not installed: install the package ${packages}`}
    }
    return {ok: true}
  }

  async connect(request: AttachRequest<NbdEndpoint>, slot: Slot, signal: AbortSignal): Promise<BlockNode> {
    const served = await queryExport(request.endpoint, QUERY_TIMEOUT_MS, signal)
    checkExport(request, served)
    await slot.note({exportBytes: served.sizeBytes})
    const id = idOf(slot)
    const files = filesOf(slot, id)
    await mkdir(mountPointOf(slot, id), {recursive: true, mode: 0o700})
    slot.step('mount point made')

    const readOnly = request.readOnly === true || served.readOnly
    const nbdfuse = startNbdfuse(files, request.endpoint, {readOnly, connections: this.#connections, source: sourceOf(slot, id)})
    slot.step('nbdfuse started')
    await waitForMount(nbdfuse, files, MOUNT_TIMEOUT_MS, signal)
    slot.step('mounted')

    const {name, major, minor} = await bindLoop(files.file, {readOnly, sizeBytes: request.sizeBytes}, signal)
    slot.step('loop device bound')
    return {name, major, minor}
  }

  async inspect(slot: Slot, {probe}: {readonly probe: boolean}): Promise<Condition> {
    const {loops, processes, mounts} = await findParts(slot)
    if (loops.length + processes.length + mounts.length === 0) return {state: 'gone'}
    const [loop] = loops
    if (loop === undefined) return {state: 'down', reason: 'it has no loop device'}
    const {name, major, minor} = loop
    const node = {name, major, minor}
    if (processes.length === 0) return {state: 'down', reason: `nbdfuse is gone (${(await logTail(logOf(slot))) || 'it said nothing'})`, node}
    if (loops.length !== 1 || processes.length !== 1 || mounts.length !== 1) return {state: 'down', reason: 'it is not whole', node}
    if (await isBeingReleased(loop)) return {state: 'down', reason: `${name} is being released`, node}
    const problem = probe ? await readProblem(loop.backingFile, this.#probeTimeoutMs) : undefined
    return problem === undefined ? {state: 'up', node} : {state: 'down', reason: problem, node}
  }

  async disconnect(slot: Slot, {force}: {readonly force: boolean}): Promise<readonly string[]> {
    const {loops, processes, mounts} = await findParts(slot)
    // One that was just being started would mount later.
    if (mounts.length === 0) await killAll(processes)
    for (const loop of loops) {
      if (!(await releaseLoop(loop, force ? PROMPT_MS : RELEASE_TIMEOUT_MS))) {
        if (!force) throw stillUsed(slot, loop)
        // Its requests then fail instead of waiting, and whoever waits for them lets go.
        await killAll(processes)
      }
      slot.step('loop device released')
    }
    await this.#unmount(slot, processes)
    slot.step('unmounted')
    for (const id of processes) {
      if (!(await waitForExit(id, force ? PROMPT_MS : EXIT_TIMEOUT_MS))) await killAll([id])
    }
    slot.step('nbdfuse ended')
    // It may have mounted just before it was killed.
    await this.#unmount(slot, [])
    const remarks: string[] = []
    for (const loop of loops) {
      if (await waitForRelease(loop, PROMPT_MS)) continue
      remarks.push(`/dev/${loop.name} gives I/O errors and stays until the last process that uses it lets go of it`)
    }
    return remarks
  }

  async resize(slot: Slot, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const [loop] = (await findParts(slot)).loops
    if (loop === undefined) throw new LonghornError('NOT_FOUND', `volume ${slot.volume} has no loop device`)
    if (!(sizeBytes <= Number(slot.notes?.exportBytes))) {
      throw new LonghornError(
        'UNSUPPORTED',
        `volume ${slot.volume} was attached by way of nbdfuse, which does not see that its export has grown: detach it and attach it again`,
      )
    }
    await resizeLoop(loop, sizeBytes, signal)
  }

  /** From the mount table to the mount table: nothing here looks into a mount whose server may hang. */
  async #unmount(slot: Slot, processes: readonly ProcessId[]): Promise<void> {
    const deadline = performance.now() + PROMPT_MS
    for (;;) {
      const [mountPoint] = await findMounts(slot)
      if (mountPoint === undefined) return
      // The loop device is gone, so nobody needs the mount. Lazy is for those who just stand in it.
      const lazy = performance.now() > deadline
      const args = [...(lazy ? ['--lazy'] : []), '--no-canonicalize', '--internal-only', mountPoint]
      try {
        const {ok, stderr} = await tryCommand('umount', args, {timeoutMs: UMOUNT_TIMEOUT_MS})
        if (!ok && lazy) throw new LonghornError('IO', `cannot unmount ${mountPoint}: ${stderr}`)
        if (!ok) await sleep(UMOUNT_RETRY_MS)
      } catch (error) {
        if (!isKind(error, 'TIMEOUT') || lazy) throw error
        await killAll(processes)
      }
    }
  }
}

/** Refuses exports that would lose data this way; the head of this file says why. */
function checkExport({volume, endpoint, trim, sizeBytes, readOnly = false}: AttachRequest<NbdEndpoint>, served: NbdExport): void {
  const refuse = (kind: 'UNSUPPORTED' | 'USAGE', why: string): LonghornError =>
    new LonghornError(kind, `volume ${volume}, export "${endpoint.exportName}": ${why}`, {served})
  if (served.sizeBytes === 0 || served.sizeBytes % 512 !== 0) throw refuse('UNSUPPORTED', `${served.sizeBytes} bytes make no block device`)
  if (sizeBytes !== undefined && !(sizeBytes > 0 && sizeBytes % 512 === 0 && sizeBytes <= served.sizeBytes)) {
    throw refuse('USAGE', `a device of ${sizeBytes} bytes is not possible on an export of ${served.sizeBytes}`)
  }
  if (readOnly || served.readOnly) return
  if (!served.canFlush) throw refuse('UNSUPPORTED', 'it does not offer FLUSH, so nothing could be made durable')
  if (!served.canWriteZeroes) throw refuse('UNSUPPORTED', 'it does not offer WRITE_ZEROES, which nbdfuse needs')
  if (served.canTrim && trim !== 'reads-zeros') {
    throw refuse('UNSUPPORTED', 'its TRIM may keep old data, and a loop device writes zeros by it: serve it with a TRIM that reads zeros, or with none')
  }
}

/** Reads one sector from the export, past all caches, in a process that may get stuck. Undefined when it came back. */
async function readProblem(file: string, timeoutMs: number): Promise<string | undefined> {
  try {
    const args = [`if=${file}`, 'of=/dev/null', 'bs=512', 'count=1', 'iflag=direct', 'status=none']
    const {ok, stderr} = await tryCommand('dd', args, {timeoutMs})
    return ok ? undefined : `it cannot be read (${stderr})`
  } catch (error) {
    if (!isKind(error, 'TIMEOUT')) throw error
    return `nothing has answered a read for ${timeoutMs} ms`
  }
}

async function killAll(processes: readonly ProcessId[]): Promise<void> {
  for (const id of processes) {
    signalProcess(id, 'SIGKILL')
    if (!(await waitForExit(id, PROMPT_MS))) throw new LonghornError('BUSY', `nbdfuse (process ${id.pid}) does not end`, {pid: id.pid})
  }
}

/** Why a device file cannot be used; undefined if it can. Opening either of these has no effect. */
async function openProblem(path: string): Promise<string | undefined> {
  try {
    await using _device = await open(path, constants.O_RDWR)
    return undefined
  } catch (error) {
    const code = errnoOf(error)
    return code === 'ENOENT' ? 'there is no such device' : code === 'EPERM' || code === 'EACCES' ? 'it may not be opened' : messageOf(error)
  }
}

function idOf(slot: Slot): string {
  if (slot.id === undefined) throw new Error('an attachment without an id: the record comes first')
  return slot.id
}

function stillUsed({volume}: Slot, {name}: BlockNode): LonghornError {
  return new LonghornError('BUSY', `/dev/${name} of volume ${volume} is still in use: end what uses it, or detach it by force`, {node: name})
}
