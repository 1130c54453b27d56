import {randomBytes} from 'node:crypto'
import {stat} from 'node:fs/promises'
import {join} from 'node:path'
import {formatAddress, type TcpAddress} from '../../lib/address.js'
import {errnoOf, LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {DIGEST_KEY_BYTES} from '../../protocol/frame.js'
import type {DiskSteps} from '../disk-steps.js'
import {ioFailure} from '../io-failure.js'
import {metaFile} from '../layer-names.js'
import {completeLayer, type JoinedDirectory} from './join.js'
import type {LayerDescription} from './layer-description.js'
import {syncLayer} from './layer-sync.js'
import type {FetchBelow} from './open-joining.js'
import {RebuildPace} from './rebuild-pace.js'
import {REGION_BYTES} from './region-digest.js'
import {SourceFailure, Sources} from './sources.js'

/** How far a rebuild is. */
export interface RebuildStatus {
  readonly state: '' | 'in_progress' | 'complete' | 'error'
  readonly error: string
  /** Bytes compared or copied, of how many, and those that came over the network. */
  readonly done: number
  readonly total: number
  readonly copied: number
  /** The address of the source that cannot be used any more, when it failed because of that; else ''. */
  readonly failedSource: string
}

export interface RebuildRequest {
  /** Addresses of control services of replicas that are up to date. */
  readonly sources: readonly TcpAddress[]
  /** Parents first; the last one of the live chain is the snapshot that the head here stands on. */
  readonly layers: readonly (LayerDescription & {readonly allocatedBytes: number})[]
  /** The layer that the head here stands on. */
  readonly snapshot: string
  readonly bytesPerSecond: number
  /** A bit for each region: what may have changed since the replica was dropped; undefined when that is not known. */
  readonly changed: Buffer | undefined
}

/** Of what is taken for unchanged, this many regions in a layer are compared all the same. */
const SAMPLES = 16

/**
 * Fetches the layers below the head of a replica that has joined, while it is being written. It can be broken off anywhere; the next one
 * goes on with what is there. What is not complete has no .meta, so nobody takes it for a layer.
 */
export class Rebuild {
  readonly #abort = new AbortController()
  readonly #log: Log
  #status: RebuildStatus = {state: '', error: '', done: 0, total: 0, copied: 0, failedSource: ''}
  #running: Promise<void> = Promise.resolve()
  #view: Sources | undefined
  /** Who waits for what lies below before the sources are known. */
  readonly #started: Promise<Sources>
  #start: (view: Sources) => void = () => undefined
  #refuse: (reason: Error) => void = () => undefined

  constructor(
    readonly directory: string,
    readonly joined: JoinedDirectory,
    readonly disk: DiskSteps,
    log: Log,
  ) {
    this.#log = log
    this.#started = new Promise((resolve, reject) => {
      this.#start = resolve
      this.#refuse = reject
    })
    this.#started.catch(() => undefined)
  }

  get status(): RebuildStatus {
    return this.#status
  }

  /** See LayerStack.fetchBelow. */
  readonly fetchBelow: FetchBelow = async (offset, length) => {
    const view = await this.#started
    const block = Buffer.alloc(length)
    // Before an expansion the volume was smaller: what lies past its end was zeros.
    const bytes = Math.max(0, Math.min(length, this.#viewBytes - offset))
    if (bytes > 0) await view.ask(source => source.read(block, 0, bytes, offset))
    return block
  }
  #viewBytes = 0

  /** Begins. `busy`: see RebuildPace. CONFLICT when it has begun already. */
  start(request: RebuildRequest, busy: () => boolean): void {
    if (this.#status.state !== '') throw new LonghornError('CONFLICT', `the rebuild in ${this.directory} has begun already`)
    const {sources, snapshot} = request
    this.#view = new Sources(sources, {kind: 'view', layer: snapshot}, this.#abort.signal)
    this.#viewBytes = request.layers.find(({file}) => file === snapshot)?.lengthBytes ?? 0
    this.#start(this.#view)
    const total = request.layers.reduce((sum, layer) => sum + layer.allocatedBytes, 0)
    this.#status = {...this.#status, state: 'in_progress', total}
    this.#running = this.#run(request, new RebuildPace(request.bytesPerSecond, busy, this.#abort.signal)).then(
      () => this.#end('complete', ''),
      (error: unknown) => {
        if (error instanceof SourceFailure) this.#status = {...this.#status, failedSource: formatAddress(error.source)}
        this.#end('error', messageOf(error))
      },
    )
  }

  /** Breaks it off, and ends the connections to the sources. Resolves when nothing of it is running any more. Safe twice. */
  async stop(): Promise<void> {
    const reason = new LonghornError('INTERRUPTED', `the rebuild in ${this.directory} was broken off`)
    this.#abort.abort(reason)
    this.#refuse(reason)
    await this.#running
    this.#view?.close()
  }

  #end(state: 'complete' | 'error', error: string): void {
    this.#status = {...this.#status, state, error}
    if (state === 'complete') this.#log.info({bytes: this.#status.done, copied: this.#status.copied}, 'all layers are here')
    else this.#log.error({reason: error}, 'the rebuild failed')
  }

  async #run(wanted: RebuildRequest, pace: RebuildPace): Promise<void> {
    const sources = await this.#view!.connectAll()
    if (sources.length < wanted.sources.length) this.#log.warn({sources: sources.map(formatAddress)}, 'not all sources can be reached')
    const request = {...wanted, sources}
    /** Those of which only what is known to have changed was looked at. */
    const partly: RebuildRequest['layers'][number][] = []
    let trusted = this.joined.comparable && request.changed !== undefined
    for (const layer of request.layers) {
      const before = this.#status.done
      if (await this.#needed(layer)) {
        const differs = await this.#layer(layer, request, trusted, pace)
        if (!differs) partly.push(layer)
        // They fit together only if all of them are the same in the same places.
        else for (const one of partly.splice(0)) await this.#sync(one, request, pace, () => true, () => undefined)
        trusted &&= !differs
      }
      // Space on disk is counted in another way than data.
      this.#status = {...this.#status, done: before + layer.allocatedBytes}
    }
  }

  /** A layer that is complete here is the same; but for some, in a replica that is whole. */
  async #needed({file}: LayerDescription): Promise<boolean> {
    return this.joined.whole ? this.joined.doubtful.has(file) : !(await exists(join(this.directory, metaFile(file))))
  }

  async #layer(layer: RebuildRequest['layers'][number], request: RebuildRequest, trusted: boolean, pace: RebuildPace): Promise<boolean> {
    const regions = Math.ceil(layer.lengthBytes / REGION_BYTES)
    const {formerHead, doubtful} = this.joined
    const known = trusted && (layer.file === formerHead || doubtful.has(layer.file)) ? request.changed : undefined
    const changed = known === undefined ? () => true : (region: number) => bit(known, region)
    const samples = new Set(Array.from({length: SAMPLES}, () => Math.floor(Math.random() * regions)))
    this.#log.info({layer: layer.file, bytes: layer.allocatedBytes, changesKnown: known !== undefined}, 'comparing a layer')
    let differs = false
    await this.#sync(layer, request, pace, region => changed(region) || samples.has(region), (region, copied) => {
      if (copied > 0 && !changed(region)) differs = true
    })
    if (differs) {
      this.#log.warn({layer: layer.file}, 'something differs that was not known to have changed: comparing all of the layer')
      await this.#sync(layer, request, pace, () => true, () => undefined)
    }
    await completeLayer(this.directory, layer, this.disk)
    return differs
  }

  async #sync(layer: LayerDescription, {sources}: RebuildRequest, pace: RebuildPace, wanted: (region: number) => boolean, done: (region: number, copied: number) => void): Promise<void> {
    const digestKey = randomBytes(DIGEST_KEY_BYTES)
    const from = new Sources(sources, {kind: 'layer', layer: layer.file, digestKey}, this.#abort.signal)
    try {
      await syncLayer({
        directory: this.directory,
        file: layer.file,
        lengthBytes: layer.lengthBytes,
        sources: from,
        digestKey,
        pace,
        wanted,
        done: (region, bytes, copied) => {
          this.#status = {...this.#status, done: this.#status.done + bytes, copied: this.#status.copied + copied}
          done(region, copied)
        },
      })
    } catch (error) {
      throw ioFailure(`copying ${layer.file} to ${this.directory}`, error)
    } finally {
      from.close()
    }
  }
}

function bit(bits: Buffer, index: number): boolean {
  return ((bits[index >> 3] ?? 0xff) & (1 << (index & 7))) !== 0
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}
