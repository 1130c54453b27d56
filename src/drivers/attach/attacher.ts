// From where a volume is served to a block device of this host, and back. One of several ways does the work; here is what
// they have in common. For volume VOL there are
//
//     /dev/longhorn/VOL                    the device node, what users see
//     /run/longhorn/attach/volumes/VOL/    the record, and what the way keeps
//     /run/longhorn/attach/locks/VOL       exists while somebody works on it
//
// They come in this order: directory, record, what the way makes, the node in the record, the node itself. They go in the
// opposite order, so that whoever finds a directory after a kill -9, at any step, finds everything that has to go.
import {mkdir, readdir, realpath} from 'node:fs/promises'
import {join} from 'node:path'
import {isDeepStrictEqual} from 'node:util'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import type {AttachRequest, AttachWay, Availability, BlockNode, Condition, Endpoint} from './attach-way.js'
import {AttachmentSlot} from './attachment-slot.js'
import {clearNode, deviceSize, makeNode, nodeAt, removeBlockNode, removeDeadNode, removeNode, sameDevice} from './block-node.js'
import {fileSystemsOn} from './freeze/file-systems-on.js'
import {freeze, thawLeftOver, type Frozen} from './freeze/freezer.js'
import {flushDevice, isFound, releaseUsers} from './release-users.js'
import {checkVolumeName} from './volume-name.js'
import {VolumeLock} from './volume-lock.js'

const LOCK_TIMEOUT_MS = 60_000

export interface AttacherOptions {
  /** Default /run/longhorn/attach. It should not survive a reboot, but may. */
  readonly stateDirectory?: string
  /** Default /dev/longhorn. */
  readonly deviceDirectory?: string
  /** Called after each step that changes the system, for logs at the debug level and for tests. */
  readonly onStep?: (volume: string, step: string) => void
  /** Called when a way was chosen, with the reasons why those before it cannot be taken, for logs. */
  readonly onChoice?: (volume: string, way: string, passedOver: readonly string[]) => void
}

/** What an engine has to know before it serves a volume that is to be attached here. */
export interface AttachPlan {
  readonly way: string
  /** How the volume has to be served. */
  readonly takes: Endpoint['kind']
  /** Whether TRIM has to promise zeros (AttachRequest.trim). */
  readonly zeroesByTrim: boolean
  /** Where it is attached from already, by an engine that may have died: one that serves it there again is found by the device. */
  readonly endpoint: Endpoint | undefined
}

/** A volume that is attached to this host. */
export interface AttachedDevice {
  readonly volume: string
  /** The way that made it. */
  readonly way: string
  /** `/dev/longhorn/VOL`. */
  readonly device: string
  readonly node: BlockNode
  readonly sizeBytes: number
  readonly endpoint: Endpoint
}

export interface Attachment {
  readonly volume: string
  /** Empty when the record is lost. */
  readonly way: string
  readonly device: string
  readonly node: BlockNode | undefined
  readonly sizeBytes: number | undefined
  readonly endpoint: Endpoint | undefined
  /** ISO 8601. */
  readonly attachedAt: string | undefined
  /** `changing`: an attach or detach is under way. `broken`: the next one cleans up. */
  readonly state: 'attached' | 'changing' | 'broken'
  /** Why it is broken. */
  readonly reason: string | undefined
}

export interface DetachOptions {
  /** Take it away from its users. */
  readonly force?: boolean
  /** Leave alone what works. */
  readonly onlyBroken?: boolean
}

export interface DetachReport {
  /** False when there was nothing to detach. */
  readonly detached: boolean
  /** Mount points that were taken away from their users, by force. */
  readonly unmounted: readonly string[]
  /** What a person should know about how it went, one line each. */
  readonly warnings: readonly string[]
}

export class Attacher {
  readonly #ways: readonly AttachWay[]
  readonly #stateDirectory: string
  readonly #deviceDirectory: string
  readonly #onStep: (volume: string, step: string) => void
  readonly #onChoice: NonNullable<AttacherOptions['onChoice']>

  /** The ways in the order of preference. */
  constructor(ways: readonly AttachWay[], options: AttacherOptions = {}) {
    this.#ways = ways
    this.#stateDirectory = options.stateDirectory ?? '/run/longhorn/attach'
    this.#deviceDirectory = options.deviceDirectory ?? '/dev/longhorn'
    this.#onStep = options.onStep ?? (() => undefined)
    this.#onChoice = options.onChoice ?? (() => undefined)
  }

  /** What each way says about this host, in the order of preference. */
  async available(): Promise<(Availability & {readonly way: string})[]> {
    return Promise.all(this.#ways.map(async way => ({way: way.name, ...(await way.available())})))
  }

  /**
   * The way to attach a volume that can be served in whatever manner the way takes: `wanted`; or with `auto` the one by which
   * it is attached already, else the first that this host can do. Changes nothing. Throws UNSUPPORTED with the reasons, or USAGE.
   */
  async plan(volume: string, wanted = 'auto'): Promise<AttachPlan> {
    checkVolumeName(volume)
    const {record} = await this.#slot(volume)
    const earlier = wanted === 'auto' ? this.#ways.find(({name}) => name === record?.way) : undefined
    const way = earlier !== undefined && (await earlier.available()).ok ? earlier : await this.#choose(volume, wanted)
    const {name, takes, zeroesByTrim} = way
    return {way: name, takes, zeroesByTrim, endpoint: record?.way === name ? record.request.endpoint : undefined}
  }

  /**
   * Makes the volume's block device, or finds that it is there already; cleans up first after an attach that was killed or
   * whose engine has died. `way` is a name, or `auto` for the first that this host can do.
   *
   * Throws CONFLICT (attached from elsewhere, or by another way than demanded), BUSY (the device of a dead engine is in use;
   * or another attach is under way), UNSUPPORTED (no way works here, with the reasons), UNREACHABLE, TIMEOUT, or the reason
   * of `signal`; nothing is then left of this attempt.
   */
  async attach(request: AttachRequest, signal: AbortSignal, way = 'auto'): Promise<AttachedDevice> {
    checkVolumeName(request.volume)
    await using _lock = await this.#lock(request.volume, signal)
    const slot = await this.#slot(request.volume)
    const existing = await this.#existing(slot, request, way)
    if (existing !== undefined) return existing
    const chosen = await this.#choose(request.volume, way, request.endpoint.kind)
    try {
      return await this.#make(chosen, slot, request, signal)
    } catch (error) {
      // The first error is the one that matters. What cannot be cleaned up now is found by the next attach or detach.
      await this.#dismantle(slot, {force: true, flush: false}).catch(() => undefined)
      throw error
    }
  }

  /**
   * Flushes and removes the volume's block device, whatever condition it is in. Detaching what is not attached is fine.
   * Throws BUSY, naming the users, when it is in use. With `force` the users lose it: file systems are unmounted lazily.
   * Throws IO or TIMEOUT when a device that works cannot be flushed; `force` gives those writes up.
   */
  async detach(volume: string, {force = false, onlyBroken = false}: DetachOptions, signal: AbortSignal): Promise<DetachReport> {
    checkVolumeName(volume)
    await using _lock = await this.#lock(volume, signal)
    const slot = await this.#slot(volume)
    if (!slot.exists) {
      await removeDeadNode(this.#deviceOf(volume))
      return {detached: false, unmounted: [], warnings: []}
    }
    const frozen = await thawLeftOver(slot.directory)
    const known = onlyBroken ? await this.#ways.find(({name}) => name === slot.record?.way)?.inspect(slot, {probe: true}) : undefined
    if (known?.state === 'up') return {detached: false, unmounted: [], warnings: []}
    const report = await this.#dismantle(slot, {force, flush: true}, known)
    return {...report, warnings: [...frozen, ...report.warnings]}
  }

  /**
   * Makes an attached device larger, in use or not; the volume itself has grown before. Returns its size.
   * Throws NOT_FOUND when it is not attached, CONFLICT when it would shrink, UNSUPPORTED when it has to be attached anew.
   */
  async resize(volume: string, sizeBytes: number, signal: AbortSignal): Promise<number> {
    checkVolumeName(volume)
    await using _lock = await this.#lock(volume, signal)
    const slot = await this.#slot(volume)
    const way = this.#ways.find(({name}) => name === slot.record?.way)
    const condition = await way?.inspect(slot, {probe: false})
    if (way === undefined || condition?.state !== 'up') throw new LonghornError('NOT_FOUND', `volume ${volume} is not attached to this host`)
    const before = (await deviceSize(condition.node)) ?? 0
    if (sizeBytes < before) throw new LonghornError('CONFLICT', `volume ${volume} has ${before} bytes and cannot shrink to ${sizeBytes}`)
    if (sizeBytes > before) await way.resize(slot, sizeBytes, signal)
    return sizeBytes
  }

  /**
   * Freezes the file systems that are mounted from a volume's device, in whatever mount namespace, and writes down that it does: should
   * this process be killed and its helper too, the next attach or detach thaws them. Without any, the device's cache is written back.
   * NOT_FOUND when it is not attached; otherwise as freeze().
   */
  async freeze(volume: string, signal: AbortSignal): Promise<Frozen> {
    checkVolumeName(volume)
    await using _lock = await this.#lock(volume, signal)
    const slot = await this.#slot(volume)
    const way = this.#ways.find(({name}) => name === slot.record?.way)
    const condition = await way?.inspect(slot, {probe: false})
    if (condition?.state !== 'up') throw new LonghornError('NOT_FOUND', `volume ${volume} is not attached to this host`)
    const [problem] = await thawLeftOver(slot.directory)
    if (problem !== undefined) throw new LonghornError('IO', problem)
    const mounted = await fileSystemsOn(condition.node)
    if (mounted.length > 0) return freeze(slot.directory, mounted)
    await flushDevice(volume, condition, [`/dev/${condition.node.name}`, this.#deviceOf(volume)], false)
    return {mountPoints: [], thaw: async () => undefined}
  }

  /** What is attached to this host, by name. Touches no device, so it answers also when one hangs. */
  async list(): Promise<Attachment[]> {
    const folder = join(this.#stateDirectory, 'volumes')
    const volumes = await readdir(folder).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return []
      throw error
    })
    return Promise.all(volumes.sort().map(async volume => this.#describe(await this.#slot(volume))))
  }

  async #describe(slot: AttachmentSlot): Promise<Attachment> {
    const {record, volume} = slot
    const way = this.#ways.find(({name}) => name === record?.way)
    const condition: Condition = (await way?.inspect(slot, {probe: false})) ?? {state: 'down', reason: 'its record cannot be read'}
    const node = 'node' in condition ? condition.node : undefined
    const problem = condition.state === 'down' ? condition.reason : await this.#nodeProblem(slot, node)
    return {
      volume,
      way: record?.way ?? '',
      device: this.#deviceOf(volume),
      node,
      sizeBytes: node === undefined ? undefined : await deviceSize(node),
      endpoint: record?.request.endpoint,
      attachedAt: record?.attachedAt,
      state: problem === undefined ? 'attached' : VolumeLock.isHeld(this.#lockPath(volume)) ? 'changing' : 'broken',
      reason: problem,
    }
  }

  async #nodeProblem({record, volume}: AttachmentSlot, node: BlockNode | undefined): Promise<string | undefined> {
    const path = this.#deviceOf(volume)
    const there = await nodeAt(path)
    const isRight = node !== undefined && record?.node !== undefined && there.kind === 'block' && sameDevice(there, node)
    return isRight ? undefined : `${path} is not its device`
  }

  /** The device if it is there and works. Otherwise removes what is there, so that it can be made. */
  async #existing(slot: AttachmentSlot, request: AttachRequest, wayName: string): Promise<AttachedDevice | undefined> {
    if (!slot.exists) return undefined
    await thawLeftOver(slot.directory)
    const {record} = slot
    const way = this.#ways.find(({name}) => name === record?.way)
    const condition = await way?.inspect(slot, {probe: true})
    // Without a node in the record the attach was not finished: what it made may not be what was asked for.
    if (record?.node === undefined || condition?.state !== 'up' || !sameDevice(condition.node, record.node)) {
      await this.#dismantle(slot, {force: false, flush: true}, condition)
      return undefined
    }
    if (wayName !== 'auto' && wayName !== record.way) {
      throw new LonghornError('CONFLICT', `volume ${slot.volume} is attached by way "${record.way}": detach it to use "${wayName}"`)
    }
    if (!isDeepStrictEqual(record.request.endpoint, JSON.parse(JSON.stringify(request.endpoint)))) {
      throw new LonghornError('CONFLICT', `volume ${slot.volume} is attached from another endpoint: detach it first`, {endpoint: record.request.endpoint})
    }
    await makeNode(this.#deviceOf(slot.volume), condition.node)
    return this.#attached(slot.volume, record.way, condition.node, record.request.endpoint)
  }

  async #make(way: AttachWay, slot: AttachmentSlot, request: AttachRequest, signal: AbortSignal): Promise<AttachedDevice> {
    const device = this.#deviceOf(request.volume)
    // Asked before anything is made: it may be the device of an engine of upstream's.
    await clearNode(device)
    await slot.begin(way.name, request)
    const node = await way.connect(request, slot, signal)
    await slot.setNode(node)
    await makeNode(device, node)
    slot.step('device node made')
    return this.#attached(request.volume, way.name, node, request.endpoint)
  }

  async #attached(volume: string, way: string, node: BlockNode, endpoint: Endpoint): Promise<AttachedDevice> {
    const sizeBytes = await deviceSize(node)
    if (sizeBytes === undefined) throw new LonghornError('IO', `/dev/${node.name} of volume ${volume} has gone away`)
    return {volume, way, device: this.#deviceOf(volume), node, sizeBytes, endpoint}
  }

  /** Removes all that exists of an attachment. `known`: what its way has just found. */
  async #dismantle(slot: AttachmentSlot, options: {force: boolean; flush: boolean}, known?: Condition): Promise<DetachReport> {
    const unmounted: string[] = []
    const warnings: string[] = []
    const nodes: BlockNode[] = slot.record?.node === undefined ? [] : [slot.record.node]
    // Without a record any way may have made it; each of them recognises what is its own.
    const ways = slot.record === undefined ? this.#ways : this.#ways.filter(({name}) => name === slot.record?.way)
    if (ways.length === 0) throw new LonghornError('UNSUPPORTED', `volume ${slot.volume} was attached by way "${slot.record?.way}", which this program does not have`)
    for (const way of ways) {
      const condition = known ?? (await way.inspect(slot, {probe: options.flush}))
      if (!isFound(condition)) continue
      nodes.push(condition.node)
      const paths = [`/dev/${condition.node.name}`, this.#deviceOf(slot.volume)]
      const freed = await releaseUsers(slot.volume, condition, paths, options.force)
      unmounted.push(...freed.unmounted)
      warnings.push(...freed.warnings)
      if (options.flush) warnings.push(...(await flushDevice(slot.volume, condition, paths, options.force)))
    }
    await removeNode(this.#deviceOf(slot.volume), nodes)
    slot.step('device node removed')
    for (const way of ways) warnings.push(...(await way.disconnect(slot, options)))
    // With its record lost nobody knows whose number the node has. Its device may be gone, and the number somebody else's by now:
    // they have another name for it, and this one is the volume's.
    if (slot.recordLost) await removeBlockNode(this.#deviceOf(slot.volume))
    else await removeDeadNode(this.#deviceOf(slot.volume))
    await slot.remove()
    return {detached: true, unmounted, warnings}
  }

  /** The first way that this host can do among those that are wanted and take this kind of endpoint; any kind if not given. */
  async #choose(volume: string, wanted: string, kind?: Endpoint['kind']): Promise<AttachWay> {
    const named = this.#ways.filter(({name}) => wanted === 'auto' || wanted === name)
    if (named.length === 0) {
      throw new LonghornError('USAGE', `there is no way "${wanted}" to attach: choose auto or ${this.#ways.map(({name}) => name).join(', ')}`)
    }
    const able = named.filter(({takes}) => kind === undefined || takes === kind)
    if (able.length === 0 && wanted !== 'auto') throw new LonghornError('USAGE', `"${wanted}" is no way to attach an ${kind} endpoint`)
    const reasons: string[] = []
    for (const way of able) {
      const availability = await way.available()
      if (availability.ok) {
        this.#onChoice(volume, way.name, reasons)
        return way
      }
      reasons.push(`${way.name}: ${availability.reason}`)
    }
    throw new LonghornError('UNSUPPORTED', `no block device can be made on this host: ${reasons.join('; ') || `no way for ${kind}`}`, {reasons})
  }

  async #slot(volume: string): Promise<AttachmentSlot> {
    await mkdir(this.#stateDirectory, {recursive: true, mode: 0o755})
    // The kernel shows paths without symbolic links, and ours are compared with them.
    const root = await realpath(this.#stateDirectory)
    return AttachmentSlot.open(volume, join(root, 'volumes', volume), step => this.#onStep(volume, step))
  }

  async #lock(volume: string, signal: AbortSignal): Promise<VolumeLock> {
    await mkdir(this.#stateDirectory, {recursive: true, mode: 0o755})
    return VolumeLock.take(this.#lockPath(volume), LOCK_TIMEOUT_MS, signal)
  }

  #lockPath(volume: string): string {
    return join(this.#stateDirectory, 'locks', volume)
  }

  #deviceOf(volume: string): string {
    return join(this.#deviceDirectory, volume)
  }
}
