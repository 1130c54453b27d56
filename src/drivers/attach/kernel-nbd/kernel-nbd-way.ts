// Attaching by the kernel's own NBD client: no process of ours is in the way of a request.
//
//     /dev/longhorn/VOL = /dev/nbdN ── kernel ── NBD ──> engine
//
// - A flush becomes NBD_CMD_FLUSH, FUA and discard what they are called; write-zeroes with Linux 6.13, before that the kernel
//   writes zeros. Discard is not used to make zeros, so any export will do.
// - The device outlives its server. When the connection ends, requests wait up to two minutes for another one, which the
//   keeper (keeper-main.ts) makes as soon as the server is back. A request that was on its way at that moment is sent again
//   when its time is up, 30 s after it was sent first: longer than an engine takes to drop a replica that hangs, so
//   that a request is not sent again while the first one may still be carried out.
// - Everything of ours bears `longhorn:VOL:ID` in /sys/block/nbdN/backend. Nothing else is touched.
// - A TCP connection belongs to the network namespace of the keeper, that of who attached; when that is a container's, the
//   connection ends with it.
import {existsSync} from 'node:fs'
import {release} from 'node:os'
import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError, messageOf} from '../../../lib/errors.js'
import {isObject} from '../attachment-record.js'
import type {AttachRequest, AttachWay, Availability, BlockNode, Condition, NbdEndpoint, Slot} from '../attach-way.js'
import {queryExport} from '../nbd-export.js'
import type {NbdExport} from '../nbd-negotiation.js'
import {isInstalled, runCommand, tryCommand} from '../run-command.js'
import {idsOf, keeperFile, makeKeeperFile, readStatus, removeKeeper, type KeeperStatus} from './keeper-file.js'
import type {KeeperOrder} from './keeper-main.js'
import {logTail, startKeeper} from './keeper.js'
import {disconnectNbd, findNbdDevices, resizeNbd, type BoundNbd} from './nbd-devices.js'

const QUERY_TIMEOUT_MS = 10_000
const CONNECT_TIMEOUT_MS = 60_000
const MODPROBE_TIMEOUT_MS = 20_000
const POLL_MS = 20

/** Before it devices could not be told apart by their backend. */
const LEAST_LINUX = [5, 14] as const

export interface KernelNbdOptions {
  /** Seconds after which a request is sent again. Default 30; the head of this file says why. */
  readonly requestTimeout?: number
  /** Seconds for which requests wait for a server that is gone. Default 120, as long as an iSCSI session does. */
  readonly deadConnectionTimeout?: number
  /** A device that finds no server for this long counts as dead. Default 5000. */
  readonly probeTimeoutMs?: number
}

export class KernelNbdWay implements AttachWay {
  readonly name = 'kernel-nbd'
  readonly takes = 'nbd'
  readonly zeroesByTrim = false
  readonly #requestTimeout: number
  readonly #deadConnectionTimeout: number
  readonly #probeTimeoutMs: number

  constructor({requestTimeout = 30, deadConnectionTimeout = 120, probeTimeoutMs = 5000}: KernelNbdOptions = {}) {
    this.#requestTimeout = requestTimeout
    this.#deadConnectionTimeout = deadConnectionTimeout
    this.#probeTimeoutMs = probeTimeoutMs
  }

  async available(): Promise<Availability> {
    if (process.geteuid?.() !== 0) return {ok: false, reason: 'making block devices needs root'}
    if (!isLinuxOf(LEAST_LINUX)) return {ok: false, reason: `Linux ${release()} is too old: ${LEAST_LINUX.join('.')} or newer is needed`}
    if (existsSync('/sys/module/nbd')) return {ok: true}
    if (!(await isInstalled('modprobe'))) return {ok: false, reason: 'the kernel module nbd is not loaded, and modprobe is not installed'}
    const {ok} = await tryCommand('modprobe', ['--dry-run', '--quiet', 'nbd'], {timeoutMs: MODPROBE_TIMEOUT_MS})
    return ok ? {ok} : {ok, reason: 'the kernel has no module nbd (on some systems it is in the package linux-modules-extra, or kernel-modules-extra)'}
  }

  async connect(request: AttachRequest<NbdEndpoint>, slot: Slot, signal: AbortSignal): Promise<BlockNode> {
    const served = await queryExport(request.endpoint, QUERY_TIMEOUT_MS, signal)
    checkExport(request, served)
    await loadModule(signal)
    const {address, exportName} = request.endpoint
    const id = idOf(slot)
    const order: KeeperOrder = {
      file: keeperFile(slot, id),
      backend: backendOf(slot, id),
      address,
      exportName,
      sizeBytes: request.sizeBytes,
      readOnly: request.readOnly === true,
      requestTimeout: this.#requestTimeout,
      deadConnectionTimeout: this.#deadConnectionTimeout,
    }
    await slot.note({order})
    makeKeeperFile(order.file)
    slot.step('keeper file made')
    const {name, major, minor} = await this.#startKeeper(slot, order, signal)
    slot.step('connected')
    return {name, major, minor}
  }

  async inspect(slot: Slot, {probe}: {readonly probe: boolean}): Promise<Condition> {
    const {devices, keepers} = await findParts(slot)
    if (devices.length + keepers.length === 0) return {state: 'gone'}
    const [device] = devices
    if (device === undefined) return {state: 'down', reason: `it has no device (${(await logTail(slot)) || 'its keeper said nothing'})`}
    const {name, major, minor} = device
    const node = {name, major, minor}
    if (devices.length > 1) return {state: 'down', reason: 'it has more than one device', node}
    if (device.sizeBytes === 0) return {state: 'down', reason: `${name} was disconnected`, node}
    const problem = probe ? await this.#linkProblem(slot) : undefined
    return problem === undefined ? {state: 'up', node} : {state: 'down', reason: problem, node}
  }

  async disconnect(slot: Slot, {force}: {readonly force: boolean}): Promise<readonly string[]> {
    const ids = await idsOf(slot)
    // First, as it would make what is removed here.
    for (const id of ids) await removeKeeper(keeperFile(slot, id), {hangUp: force})
    slot.step('keeper ended')
    const remarks: string[] = []
    for (const device of await findNbdDevices(ids.map(id => backendOf(slot, id)))) {
      const gone = await disconnectNbd(device, {force})
      slot.step('disconnected')
      if (!gone) remarks.push(`/dev/${device.name} gives I/O errors and stays until the last process that uses it lets go of it`)
    }
    return remarks
  }

  async resize(slot: Slot, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const [device] = (await findParts(slot)).devices
    const order = orderOf(slot)
    if (device === undefined || order === undefined) throw new LonghornError('NOT_FOUND', `volume ${slot.volume} has no device`)
    const served = await queryExport({kind: 'nbd', address: order.address, exportName: order.exportName}, QUERY_TIMEOUT_MS, signal)
    if (served.sizeBytes < sizeBytes) {
      throw new LonghornError('UNSUPPORTED', `volume ${slot.volume} is served with ${served.sizeBytes} bytes, which is less than ${sizeBytes}`)
    }
    await slot.note({order: {...order, sizeBytes}})
    await resizeNbd(device, sizeBytes, signal)
  }

  /** Why the device has no server at this moment; undefined when it has one. Starts its keeper if that is gone. */
  async #linkProblem(slot: Slot): Promise<string | undefined> {
    const order = orderOf(slot)
    if (order === undefined) return 'the note of how it was connected is lost'
    try {
      await queryExport({kind: 'nbd', address: order.address, exportName: order.exportName}, this.#probeTimeoutMs)
    } catch (error) {
      return messageOf(error)
    }
    if (readStatus(order.file) === undefined) {
      makeKeeperFile(order.file)
      startKeeper(slot, order)
    }
    for (const deadline = performance.now() + this.#probeTimeoutMs; performance.now() < deadline; await sleep(POLL_MS)) {
      if (readStatus(order.file)?.state === 'linked') return undefined
    }
    return `it has found no connection within ${this.#probeTimeoutMs} ms (${(await logTail(slot)) || 'its keeper said nothing'})`
  }

  async #startKeeper(slot: Slot, order: KeeperOrder, signal: AbortSignal): Promise<BoundNbd> {
    const child = startKeeper(slot, order)
    slot.step('keeper started')
    for (const deadline = performance.now() + CONNECT_TIMEOUT_MS; performance.now() < deadline; await sleep(POLL_MS)) {
      signal.throwIfAborted()
      // Asked in this order, as it may make the device and end in between.
      const running = child.exitCode === null && child.signalCode === null && child.pid !== undefined
      const [device] = await findNbdDevices([order.backend])
      if (device !== undefined) return device
      if (!running) throw new LonghornError('IO', `volume ${slot.volume} could not be connected: ${(await logTail(slot)) || 'its keeper said nothing'}`)
    }
    throw new LonghornError('TIMEOUT', `volume ${slot.volume} was not connected within ${CONNECT_TIMEOUT_MS} ms (${(await logTail(slot)) || 'its keeper said nothing'})`)
  }
}

/** What exists of one attachment at this moment. */
async function findParts(slot: Slot): Promise<{devices: BoundNbd[]; keepers: KeeperStatus[]}> {
  const ids = await idsOf(slot)
  return {
    devices: await findNbdDevices(ids.map(id => backendOf(slot, id))),
    keepers: ids.map(id => readStatus(keeperFile(slot, id))).filter(status => status !== undefined),
  }
}

/** Refuses exports that make no device, or one that would lose data. */
function checkExport({volume, sizeBytes, readOnly = false}: AttachRequest, served: NbdExport): void {
  const refuse = (kind: 'UNSUPPORTED' | 'USAGE', why: string): LonghornError => new LonghornError(kind, `volume ${volume}: ${why}`, {served})
  if (served.sizeBytes === 0 || served.sizeBytes % 512 !== 0) throw refuse('UNSUPPORTED', `${served.sizeBytes} bytes make no block device`)
  if (sizeBytes !== undefined && !(sizeBytes > 0 && sizeBytes % 512 === 0 && sizeBytes <= served.sizeBytes)) {
    throw refuse('USAGE', `a device of ${sizeBytes} bytes is not possible on an export of ${served.sizeBytes}`)
  }
  if (!readOnly && !served.readOnly && !served.canFlush) throw refuse('UNSUPPORTED', 'its export does not offer FLUSH, so nothing could be made durable')
}

async function loadModule(signal: AbortSignal): Promise<void> {
  if (!existsSync('/sys/module/nbd')) await runCommand('modprobe', ['nbd'], {timeoutMs: MODPROBE_TIMEOUT_MS, signal})
}

function backendOf({volume}: Slot, id: string): string {
  return `longhorn:${volume}:${id}`
}

function orderOf({notes}: Slot): KeeperOrder | undefined {
  const order = notes?.order
  return isObject(order) && typeof order.file === 'string' ? (order as unknown as KeeperOrder) : undefined
}

function idOf(slot: Slot): string {
  if (slot.id === undefined) throw new Error('an attachment without an id: the record comes first')
  return slot.id
}

function isLinuxOf([major, minor]: readonly [number, number]): boolean {
  const [runningMajor = 0, runningMinor = 0] = release().split('.').map(Number)
  return runningMajor > major || (runningMajor === major && runningMinor >= minor)
}
