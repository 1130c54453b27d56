import {randomUUID} from 'node:crypto'
import {formatAddress, type Address} from '../lib/address.js'
import {Cleanup} from '../lib/cleanup.js'
import {LonghornError, messageOf} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {closeFd} from '../lib/net/socket-calls.js'
import type {Frontend, FrontendKind, IscsiSettings} from './frontends/frontend.js'
import {chooseReplicas, type Candidate} from './replica-choice.js'
import {parseReplicaAddress, ReplicaControl} from './replica-control.js'
import {Scrub} from './scrub/scrub.js'
import {ReplicaLink, type ReplicaMode} from './replica-link.js'
import {expandVolume, revertVolume, takeSnapshot, type Members} from './snapshots.js'
import {MOST_REPLICAS, Volume} from './volume.js'

export interface EngineOptions {
  readonly volume: string
  readonly sizeBytes: number
  /** See chooseReplicas(). */
  readonly currentSizeBytes?: number | undefined
  /** `tcp://host:port` of each replica's control service. */
  readonly replicas: readonly string[]
  /** With fewer usable replicas than this the engine does not start. */
  readonly leastReplicas: number
  readonly writeThrough: boolean
  readonly replicaTimeoutMs: number
  /** The kinds of frontend there are; the CLI puts the list together. */
  readonly frontends: readonly FrontendKind[]
  readonly iscsi?: IscsiSettings | undefined
  readonly log: Log
}

/** A replica as the outside sees it. */
export interface ReplicaStatus {
  readonly address: string
  readonly mode: ReplicaMode
  /** Why it is ERR. */
  readonly reason: string | undefined
}

/** How long requests in flight may take to finish when the engine stops. */
const DRAIN_MS = 5000

/** One volume being served: its replicas, the replicator over them, and at most one frontend. */
export class Engine {
  readonly volume: Volume
  readonly scrub: Scrub
  readonly #options: EngineOptions
  readonly #controls = new Map<string, ReplicaControl>()
  /** Replicas that were given and could not be used. */
  readonly #rejected: ReadonlyMap<string, LonghornError>
  #frontend: {readonly kind: FrontendKind; readonly server: Frontend} | undefined
  #changes: Promise<void> = Promise.resolve()
  #closed: Promise<void> | undefined

  private constructor(options: EngineOptions, volume: Volume, controls: ReadonlyMap<string, ReplicaControl>, rejected: ReadonlyMap<string, LonghornError>) {
    this.#options = options
    this.volume = volume
    this.#controls = new Map(controls)
    this.#rejected = rejected
    this.scrub = new Scrub({volume, layersOf: link => this.#controls.get(link.address)!.frozenLayers(), log: options.log})
    volume.repairs.onFrozen = (link, offset, length) => this.scrub.wanted(link, offset, length)
  }

  /**
   * Opens the replicas. Nothing is changed on any of them before all have been asked and the answers fit together.
   * Throws as chooseReplicas() does, and `signal`'s reason.
   */
  static async start(options: EngineOptions, signal?: AbortSignal): Promise<Engine> {
    const addresses = checkReplicaList(options.replicas)
    await using undo = new Cleanup()
    const controls = addresses.map(address => new ReplicaControl(address, options.volume))
    undo.defer(() => {
      for (const control of controls) control.disconnect()
    })
    const candidates = await Promise.all(controls.map(control => ask(control, signal)))
    signal?.throwIfAborted()
    const choice = chooseReplicas(candidates, options.sizeBytes, options.currentSizeBytes)
    const rejected = new Map(choice.rejected)
    if (choice.usable.length < options.leastReplicas) throw tooFew(options.leastReplicas, choice.usable.length, rejected)

    const volume = new Volume({...options, name: options.volume, sizeBytes: choice.sizeBytes})
    undo.defer(() => volume.close())
    const session = randomUUID()
    const used = controls.filter(control => choice.usable.includes(control.address))
    await Promise.all(
      used.map(async (control, index) => {
        try {
          volume.addReplica(await openLink(control, 1 << index, session, options, volume, signal))
          undo.defer(() => control.close())
        } catch (error) {
          rejected.set(control.address, error as LonghornError)
        }
      }),
    )
    signal?.throwIfAborted()
    if (volume.replicas.length < Math.max(options.leastReplicas, 1)) throw tooFew(options.leastReplicas, volume.replicas.length, rejected)
    for (const [address, reason] of rejected) options.log.error({replica: address, reason: reason.message}, 'starting without this replica')
    warnOfUnsafeReplicas(volume, options.log)
    const engine = new Engine(options, volume, new Map(controls.map(control => [control.address, control])), rejected)
    undo.move()
    return engine
  }

  /** Every replica that was given, in that order. */
  get replicas(): readonly ReplicaStatus[] {
    const links = new Map(this.volume.replicas.map(link => [link.address, link]))
    return [...this.#controls.keys()].map(address => {
      const link = links.get(address)
      return {address, mode: link?.mode ?? 'ERR', reason: (link?.failure ?? this.#rejected.get(address))?.message}
    })
  }

  /** The frontend that is up, if any. */
  get frontend(): {readonly name: string; readonly endpoint: string} | undefined {
    return this.#frontend && {name: this.#frontend.kind.name, endpoint: this.#frontend.server.endpoint}
  }

  /** Starts to serve the volume. The same frontend twice is success; another one while one is up is CONFLICT, an unknown name USAGE. */
  async startFrontend(name: string, listen?: Address): Promise<void> {
    const kind = findFrontend(this.#options.frontends, name)
    await this.#inTurn(async () => {
      if (this.#frontend?.kind === kind) return
      if (this.#frontend !== undefined) {
        throw new LonghornError('CONFLICT', `frontend ${this.#frontend.kind.name} is up; shut it down before starting ${name}`)
      }
      if (this.#closed !== undefined) throw new LonghornError('CONFLICT', 'the engine is shutting down')
      const {volume, iscsi, log: to} = this.#options
      const server = await kind.open({volume, device: this.volume, listen, log: to, iscsi})
      this.#frontend = {kind, server}
      log(to, name, server.endpoint)
    })
  }

  /** Stops to serve the volume; success when nothing is up. */
  stopFrontend(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#frontend?.server.close(DRAIN_MS)
      this.#frontend = undefined
    })
  }

  /**
   * Takes a snapshot of the volume while it is being used; see takeSnapshot(). Without a name it gets one. Returns the name.
   * USAGE for a name that cannot be one, CONFLICT when there is one of that name.
   */
  async takeSnapshot(name: string | undefined, labels: Readonly<Record<string, string>>, userCreated = true): Promise<string> {
    const request = {name: name ?? randomUUID(), labels, userCreated, created: now()}
    await this.#inTurn(() => takeSnapshot(this.#members(), request))
    return request.name
  }

  /**
   * Makes the volume larger while it is being used; see expandVolume(). The size that it has is success; USAGE for a smaller one or
   * one that is not a multiple of 4096. Initiators see it as their protocol has it.
   */
  async expand(sizeBytes: number): Promise<void> {
    await this.#inTurn(async () => {
      if (sizeBytes === this.volume.sizeBytes) return
      if (sizeBytes < this.volume.sizeBytes) throw new LonghornError('USAGE', `the volume has ${this.volume.sizeBytes} bytes and cannot shrink to ${sizeBytes}`)
      if (sizeBytes % 4096 !== 0) throw new LonghornError('USAGE', `the volume cannot become ${sizeBytes} bytes large: expected a multiple of 4096`)
      await expandVolume(this.#members(), sizeBytes, now())
      this.#options.log.info({sizeBytes}, 'expanded')
      await this.#frontend?.server.resize?.(sizeBytes).catch((error: unknown) => {
        this.#options.log.warn({reason: messageOf(error)}, 'the volume is larger, and the device on this host is not yet')
      })
    })
  }

  /** Makes the volume what it was at a snapshot. CONFLICT while a frontend is up: whoever uses the volume would not notice. */
  async revert(name: string): Promise<void> {
    await this.#inTurn(async () => {
      if (this.#frontend !== undefined) {
        throw new LonghornError('CONFLICT', `frontend ${this.#frontend.kind.name} is up; shut it down before reverting the volume`)
      }
      await revertVolume(this.#members(), `volume-snap-${name}.img`, now())
    })
  }

  #members(): Members {
    return {volume: this.volume, control: link => this.#controls.get(link.address)!, log: this.#options.log}
  }

  /** Starts and stops of the frontend and snapshots happen one after the other, whatever came of those before. */
  #inTurn(step: () => Promise<void>): Promise<void> {
    const result = this.#changes.then(step)
    this.#changes = result.catch(() => undefined)
    return result
  }

  /** Shuts the frontend down, lets requests finish, flushes and closes the replicas. Safe twice. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const failures: unknown[] = []
    await this.stopFrontend().catch((error: unknown) => failures.push(error))
    await this.scrub.close()
    await Promise.race([this.volume.drained(), delay(DRAIN_MS)])
    const open = this.volume.replicas.filter(link => link.mode !== 'ERR').map(link => this.#controls.get(link.address)!)
    this.volume.close()
    const results = await Promise.allSettled(open.map(control => control.close()))
    for (const result of results) if (result.status === 'rejected') failures.push(result.reason)
    for (const control of this.#controls.values()) control.disconnect()
    if (failures.length > 0) throw failures[0]
  }
}

/** The kind of that name. Throws USAGE with the names there are. */
export function findFrontend(kinds: readonly FrontendKind[], name: string): FrontendKind {
  const kind = kinds.find(one => one.name === name)
  if (kind !== undefined) return kind
  throw new LonghornError('USAGE', `unknown frontend "${name}": expected ${kinds.map(one => one.name).join(', ')}`)
}

async function ask(control: ReplicaControl, signal: AbortSignal | undefined): Promise<Candidate> {
  try {
    return {address: control.address, answer: await control.inspect(signal)}
  } catch (error) {
    return {address: control.address, answer: error as Error}
  }
}

async function openLink(
  control: ReplicaControl,
  bit: number,
  session: string,
  options: EngineOptions,
  volume: Volume,
  signal: AbortSignal | undefined,
): Promise<ReplicaLink> {
  await using undo = new Cleanup()
  // Not given up half-way: it would stay open.
  const facts = await control.open(session)
  undo.defer(() => control.close())
  const fd = await control.connectData(signal)
  undo.defer(() => closeFd(fd))
  if (facts.state !== 'open' && facts.state !== 'dirty') {
    const kind = facts.state === 'error' ? 'CORRUPT' : 'CONFLICT'
    throw new LonghornError(kind, `replica ${control.address} is ${facts.state} after it was opened`)
  }
  undo.move()
  return new ReplicaLink(control.address, bit, facts.features, {fd, host: control.host, timeoutMs: options.replicaTimeoutMs}, volume)
}

/** The addresses, each in the one way to write it. */
function checkReplicaList(texts: readonly string[]): string[] {
  if (texts.length === 0) throw new LonghornError('USAGE', 'an engine needs at least one --replica')
  if (texts.length > MOST_REPLICAS) throw new LonghornError('USAGE', `a volume cannot have more than ${MOST_REPLICAS} replicas`)
  const addresses = texts.map(text => formatAddress(parseReplicaAddress(text)))
  const twice = addresses.find((address, index) => addresses.indexOf(address) !== index)
  if (twice !== undefined) throw new LonghornError('USAGE', `replica ${twice} is given twice`)
  return addresses
}

function tooFew(wanted: number, have: number, rejected: ReadonlyMap<string, LonghornError>): LonghornError {
  const reasons = [...rejected.values()]
  const text = `${have} of at least ${wanted} replicas can be used: ${reasons.map(messageOf).join('; ')}`
  const [first] = reasons
  return new LonghornError('NO_DATA', text, {}, first === undefined ? undefined : {cause: first})
}

/** Replicas of upstream have no flush: what the initiator flushes is as safe there as upstream makes it. */
function warnOfUnsafeReplicas(volume: Volume, to: Log): void {
  for (const link of volume.replicas) {
    if (!link.canFlush) to.warn({replica: link.address}, 'this replica cannot flush: after a power cut it may lack writes that were flushed')
  }
}

function log(to: Log, frontend: string, endpoint: string): void {
  to.info({frontend, endpoint}, 'frontend up')
}

/** RFC 3339, UTC, whole seconds. */
function now(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, 'Z')
}

function delay(ms: number): Promise<void> {
  return new Promise(resolve => {
    setTimeout(resolve, ms).unref()
  })
}
