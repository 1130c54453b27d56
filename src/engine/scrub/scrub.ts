import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {RepeatLog} from '../../lib/repeat-log.js'
import {FEATURE} from '../../protocol/frame.js'
import {REGION_BYTES} from '../../protocol/scrub-units.js'
import type {ReplicaLink} from '../replica-link.js'
import type {Volume} from '../volume.js'
import {LayerAgent} from './layer-agent.js'
import {healRegion, type Finding} from './region-healer.js'

export interface ScrubStatus {
  readonly state: '' | 'in_progress' | 'complete' | 'error'
  /** Percent. */
  readonly progress: number
  readonly error: string
  readonly findings: readonly Finding[]
  readonly found: number
  readonly healed: number
  /** Snapshots that were compared. */
  readonly layers: number
}

export interface ScrubHost {
  readonly volume: Volume
  /** File names of the frozen layers of a replica. */
  layersOf(link: ReplicaLink): Promise<readonly string[]>
  readonly log: Log
}

/** Regions asked for at once: what one answer takes stays far below the time a call may take. */
const REGIONS_PER_CALL = 64
const MOST_FINDINGS = 1000
/** What could not be healed is not tried again for this long, however often it is read. */
const RETRY_MS = 60_000
const MOST_WANTED = 256

/** Compares the frozen layers of a volume's replicas while it is used, and heals what differs. One run at a time. */
export class Scrub {
  readonly #host: ScrubHost
  readonly #repeats: RepeatLog
  #status: ScrubStatus = {state: '', progress: 0, error: '', findings: [], found: 0, healed: 0, layers: 0}
  #abort = new AbortController()
  #running: Promise<void> = Promise.resolve()
  /** Regions that a read found to be bad, and when they were tried. */
  readonly #tried = new Map<number, number>()
  #wanted = 0

  constructor(host: ScrubHost) {
    this.#host = host
    this.#repeats = new RepeatLog(host.log)
  }

  get status(): ScrubStatus {
    return this.#status
  }

  /** Begins to compare everything. BUSY while that is going on, or while a replica purges; UNSUPPORTED with less than two replicas that can. */
  async start(): Promise<void> {
    if (this.#status.state === 'in_progress') throw new LonghornError('BUSY', 'the volume is already being scrubbed')
    const before = this.#status
    this.#status = {state: 'in_progress', progress: 0, error: '', findings: [], found: 0, healed: 0, layers: 0}
    const {signal} = this.#abort
    try {
      await this.#withAgents(signal, async agents => {
        const purging = await Promise.all(agents.map(agent => agent.isPurging()))
        if (purging.includes(true)) throw new LonghornError('BUSY', 'a replica is purging; scrub when that is done')
      })
    } catch (error) {
      this.#status = before
      throw error
    }
    this.#running = this.#running
      .then(() => this.#withAgents(signal, agents => this.#all(agents)))
      .then(
        () => {
          this.#status = {...this.#status, state: 'complete', progress: 100}
          this.#host.log.info({layers: this.#status.layers, found: this.#status.found, healed: this.#status.healed}, 'scrub finished')
        },
        (error: unknown) => {
          this.#status = {...this.#status, state: 'error', error: messageOf(error)}
          this.#host.log.warn({reason: messageOf(error)}, 'scrub ended early')
        },
      )
  }

  /** Heals the snapshots in a range of the volume that a replica could not read; drops that replica when its disk refuses. */
  wanted(link: ReplicaLink, offset: number, length: number): void {
    for (let region = Math.floor(offset / REGION_BYTES); region * REGION_BYTES < offset + length; region++) {
      const now = performance.now()
      if (this.#wanted === MOST_WANTED || now - (this.#tried.get(region) ?? -Infinity) < RETRY_MS) continue
      for (const [old, at] of this.#tried) if (now - at >= RETRY_MS) this.#tried.delete(old)
      this.#tried.set(region, now)
      this.#wanted++
      this.#running = this.#running
        .then(() => this.#withAgents(this.#abort.signal, agents => this.#region(agents, region, link)))
        .catch((error: unknown) => this.#repeats.warn(link.address, {replica: link.address, region, reason: messageOf(error)}, 'what could not be read in a snapshot was not healed'))
        .finally(() => this.#wanted--)
    }
  }

  /** Ends what is going on. */
  cancel(): void {
    this.#abort.abort(new LonghornError('INTERRUPTED', 'the scrub was cancelled'))
    this.#abort = new AbortController()
  }

  /** cancel(), and waits for it. */
  async stop(): Promise<void> {
    this.cancel()
    await this.#running
  }

  /** Ends what is going on, waits for it, and begins nothing any more. */
  async close(): Promise<void> {
    this.#abort.abort(new LonghornError('INTERRUPTED', 'the engine is shutting down'))
    await this.#running
    this.#repeats.close()
  }

  async #withAgents(signal: AbortSignal, use: (agents: readonly LayerAgent[]) => Promise<void>): Promise<void> {
    signal.throwIfAborted()
    const links = this.#host.volume.members.filter(link => link.mode === 'RW' && link.features.includes(FEATURE.SCRUB))
    if (links.length < 2) throw new LonghornError('UNSUPPORTED', `${links.length} replicas in use can be compared; it takes two`)
    const agents = links.map(link => new LayerAgent(link, this.#host.volume.name, signal))
    try {
      await use(agents)
    } finally {
      for (const agent of agents) agent.close()
    }
  }

  /** Layers that two replicas or more have, with those replicas. */
  async #layers(agents: readonly LayerAgent[]): Promise<Map<string, LayerAgent[]>> {
    const layers = new Map<string, LayerAgent[]>()
    for (const agent of agents) for (const file of await this.#host.layersOf(agent.link)) layers.set(file, [...(layers.get(file) ?? []), agent])
    return new Map([...layers].filter(([, having]) => having.length > 1))
  }

  async #all(agents: readonly LayerAgent[]): Promise<void> {
    const layers = await this.#layers(agents)
    const perLayer = 100 / Math.max(1, layers.size)
    let done = 0
    for (const [layer, having] of layers) {
      const compared = await this.#whileThere(agents, layer, having, still =>
        this.#layer(still, layer, share => {
          this.#status = {...this.#status, progress: Math.min(99, Math.floor((done + share) * perLayer))}
        }),
      )
      done++
      if (compared) this.#status = {...this.#status, layers: this.#status.layers + 1}
    }
  }

  /** Does something to a layer. Where a replica purges it meanwhile, again with those that still have it; false when fewer than two do. */
  async #whileThere(agents: readonly LayerAgent[], layer: string, having: readonly LayerAgent[], what: (having: readonly LayerAgent[]) => Promise<void>): Promise<boolean> {
    for (let still: readonly LayerAgent[] | undefined = having; still !== undefined; ) {
      try {
        await what(still)
        return true
      } catch (error) {
        if (!isKind(error, 'NOT_FOUND')) throw error
        const before: number = still.length
        still = (await this.#layers(agents)).get(layer)
        if (still?.length === before) throw error
      }
    }
    return false
  }

  async #layer(agents: readonly LayerAgent[], layer: string, progress: (share: number) => void): Promise<void> {
    const {sizeBytes} = this.#host.volume
    const regions = Math.ceil(sizeBytes / REGION_BYTES)
    for (let first = 0; first < regions; first += REGIONS_PER_CALL) {
      const count = Math.min(REGIONS_PER_CALL, regions - first)
      for (const region of await differing(agents, layer, first, count)) {
        this.#note(await healRegion(agents, layer, region))
        progress((region + 1) / regions)
      }
      progress((first + count) / regions)
    }
  }

  async #region(agents: readonly LayerAgent[], region: number, link: ReplicaLink): Promise<void> {
    for (const [layer, having] of await this.#layers(agents)) {
      for (const one of await differing(having, layer, region, 1)) {
        for (const finding of await healRegion(having, layer, one)) {
          this.#report(finding)
          if (!finding.diskFailed || finding.replica !== link.address) continue
          this.#host.volume.fail(link, new LonghornError('IO', `replica ${link.address}: ${layer} could not be read at ${finding.offset}, nor healed: ${finding.reason}`))
        }
      }
    }
  }

  #note(findings: readonly Finding[]): void {
    for (const finding of findings) this.#report(finding)
    this.#status = {
      ...this.#status,
      findings: [...this.#status.findings, ...findings].slice(0, MOST_FINDINGS),
      found: this.#status.found + findings.length,
      healed: this.#status.healed + findings.filter(({healed}) => healed).length,
    }
  }

  #report({healed, ...finding}: Finding): void {
    if (healed) this.#repeats.warn(finding.replica, finding, 'a snapshot differed and was healed')
    else this.#repeats.error(finding.replica, finding, 'a snapshot differs and was not healed')
  }
}

/** The regions that are not the same on all, or that somebody cannot read. */
async function differing(agents: readonly LayerAgent[], layer: string, first: number, count: number): Promise<number[]> {
  const answers = await Promise.all(agents.map(agent => agent.regions(layer, first, count)))
  const unreadable = (digest: string): boolean => digest.startsWith('2')
  return Array.from({length: count}, (_, index) => index)
    .filter(index => {
      const digests = answers.map(({regions}) => regions[index]!)
      return digests.some(unreadable) || new Set(digests).size > 1
    })
    .map(index => first + index)
}
