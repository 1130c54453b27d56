// A volume whose parts can be killed at any moment, beside what it should hold. All of it in this process.
import {readdirSync, rmSync} from 'node:fs'
import {join} from 'node:path'
import type {Test} from 'tap'
import {Engine} from '../../../src/engine/engine.js'
import {errnoOf, isKind, messageOf} from '../../../src/lib/errors.js'
import {OP} from '../../../src/protocol/block-device.js'
import {openVolumeView} from '../../../src/replica/open-replica.js'
import type {Random} from '../../replica/support/random.js'
import {read, submit, submitWrite, type Request} from '../../support/request.js'
import {until} from '../../support/until.js'
import {BLOCK, BlockHistory, Possible} from './block-history.js'
import {CrashReplica} from './crash-replica.js'
import {memoryLog} from './fake-replicas.js'

const MOST_BYTES = 128 * 1024

/** How a directory is saved from a replica that is killed: as it is, or as a power cut leaves it. */
export type Capture = (from: string, to: string) => void

/** The place of a replica: what runs there comes and goes. */
export interface Place {
  readonly index: number
  directory: string
  port: number
  running: CrashReplica | undefined
}

/** A snapshot: what it holds when that is known, else what it may hold. */
interface Snapshot {
  content: Buffer | undefined
  possible: Possible
  /** What it may hold after a power cut when it was not acknowledged. */
  readonly weak: Possible
  /** It was acknowledged. */
  certain: boolean
}

/** From the first one up to, and without, the second. */
type Blocks = readonly [first: number, end: number]

export interface ClusterOptions {
  readonly folder: string
  readonly replicas: number
  readonly sizeBytes: number
  /** Called with the directory of each replica before it starts. */
  readonly adopt?: (directory: string) => void
}

export class Cluster {
  readonly history: BlockHistory
  readonly snapshots = new Map<string, Snapshot>()
  readonly places: Place[] = []
  /** Requests, snapshots and everything else that was asked for. */
  steps = 0
  /** The last things that happened, for whoever reads a failure. */
  readonly story: string[] = []
  #engine: Engine | undefined
  #lines: Record<string, unknown>[] = []
  readonly #ending: Promise<unknown>[] = []
  /** The blocks that requests in flight change. */
  readonly #inFlight = new Set<{readonly discards: Blocks[]; readonly changes: Blocks[]}>()
  #names = 0
  #directories = 0
  readonly #source = Buffer.alloc(1024 * 1024)

  constructor(
    readonly random: Random,
    readonly options: ClusterOptions,
  ) {
    this.history = new BlockHistory(options.sizeBytes)
    random.fill(this.#source)
  }

  static async start(t: Test, random: Random, options: ClusterOptions): Promise<Cluster> {
    const cluster = new Cluster(random, options)
    // Timers of a rebuild alone do not keep a process running.
    const awake = setInterval(() => undefined, 1000)
    t.teardown(async () => {
      clearInterval(awake)
      await cluster.close()
    })
    for (let index = 0; index < options.replicas; index++) {
      const place: Place = {index, directory: cluster.#newDirectory(index), port: 0, running: undefined}
      cluster.places.push(place)
      await cluster.startReplica(place, options.sizeBytes)
    }
    await cluster.startEngine()
    return cluster
  }

  get engine(): Engine {
    if (this.#engine === undefined) throw new Error('no engine is running')
    return this.#engine
  }

  /** The places whose replicas can be read. */
  get readable(): Place[] {
    const modes = new Map(this.#engine?.replicas.map(({address, mode}) => [address, mode]))
    return this.places.filter(({running}) => running !== undefined && modes.get(running.address) === 'RW')
  }

  get rebuilding(): boolean {
    return this.#engine?.rebuilds.some(({state}) => state === 'in_progress') === true
  }

  /** What the logs said last, and what was done. */
  get account(): string {
    const logs = [['engine', this.#lines] as const, ...this.places.map(({index, running}) => [`replica ${index}`, running?.lines ?? []] as const)]
    const text = logs.map(([who, lines]) => `${who}:\n${lines.slice(-25).map(line => `  ${JSON.stringify(line)}`).join('\n')}`)
    return [...this.story.slice(-60), ...text].join('\n')
  }

  tell(what: string): void {
    this.steps += 1
    this.story.push(what)
    if (this.story.length > 200) this.story.splice(0, 100)
  }

  async startReplica(place: Place, sizeBytes?: number): Promise<CrashReplica> {
    this.tell(`replica ${place.index} starts in ${place.directory}`)
    if (sizeBytes === undefined) this.options.adopt?.(place.directory)
    place.running = await CrashReplica.start(place.directory, place.port, sizeBytes)
    if (sizeBytes !== undefined) this.options.adopt?.(place.directory)
    place.port = place.running.port
    return place.running
  }

  /** From one moment to the next; what it left can be started again. */
  killReplica(place: Place, capture: Capture): void {
    const {running} = place
    if (running === undefined) return
    this.tell(`replica ${place.index} is killed`)
    place.running = undefined
    const to = this.#newDirectory(place.index)
    this.#ending.push(running.kill(from => capture(from, to)))
    place.directory = to
  }

  /** On all replicas that run, and of the size that the volume has, or had before an expansion that was cut short. */
  async startEngine(sizes: readonly number[] = [this.history.sizeBytes]): Promise<void> {
    await this.settled()
    this.tell('an engine starts')
    const {log, lines} = memoryLog()
    const replicas = this.places.flatMap(({running}) => running?.address ?? [])
    const options = {volume: 'vol', replicas, leastReplicas: 1, writeThrough: false, replicaTimeoutMs: 60_000, frontends: [], log}
    for (const sizeBytes of sizes) {
      try {
        this.#engine = await Engine.start({...options, sizeBytes})
        this.#lines = lines
        return
      } catch (error) {
        if (!isKind(error, 'CONFLICT') || sizeBytes === sizes.at(-1)) throw error
      }
    }
  }

  async closeEngine(): Promise<void> {
    this.tell('the engine is closed')
    const engine = this.engine
    this.#engine = undefined
    await engine.close()
  }

  /** It is not asked any more, but does not know: it goes on as long as its replicas let it. */
  abandonEngine(): void {
    this.tell('the engine is abandoned')
    const engine = this.engine
    this.#engine = undefined
    this.#later.push(engine)
  }
  readonly #later: Engine[] = []

  /** The power of everything is cut, at this moment. What the volume may hold from now on. */
  cutPower(capture: Capture, revertedTo: Buffer | undefined): Possible {
    this.tell('the power is cut')
    let possible = this.history.possible('flushed')
    for (const snapshot of this.snapshots.values()) if (!snapshot.certain) snapshot.possible = snapshot.weak.or(possible)
    if (revertedTo !== undefined) possible = possible.or(Possible.of(padded(revertedTo, this.history.sizeBytes)))
    if (this.#engine !== undefined) this.abandonEngine()
    for (const place of this.places) this.killReplica(place, capture)
    return possible
  }

  /** Everything that was killed is gone. */
  async settled(): Promise<void> {
    await Promise.all(this.#ending.splice(0))
  }

  /** The engines that were abandoned end, which nobody must notice. */
  async bury(): Promise<void> {
    for (const engine of this.#later.splice(0)) await engine.close().catch(() => undefined)
  }

  async close(): Promise<void> {
    await this.bury()
    await this.#engine?.close().catch(() => undefined)
    this.#engine = undefined
    await this.settled()
    for (const place of this.places) await place.running?.close()
  }

  /** Submits some requests at once. Resolves to how many failed when all have ended. */
  batch(count: number): Promise<number> {
    const {random, history} = this
    const {volume} = this.engine
    const pending: Promise<boolean>[] = []
    const near = random.oneIn(2) ? random.below(history.sizeBytes) : undefined
    const mine = {discards: [] as Blocks[], changes: [] as Blocks[]}
    this.#inFlight.add(mine)
    const touches = (kind: 'discards' | 'changes', from: number, end: number): boolean => [...this.#inFlight].some(batch => overlaps(batch[kind], from, end))
    for (let index = 0; index < count; index++) {
      this.steps += 1
      if (random.oneIn(10)) {
        const mark = history.flushBegins()
        pending.push(answered(submit(volume, OP.FLUSH), () => history.flushed(mark)))
        continue
      }
      const [offset, length] = this.#range(near)
      const from = Math.floor(offset / BLOCK)
      const end = Math.ceil((offset + length) / BLOCK)
      if (touches('discards', from, end)) continue
      const fua = random.oneIn(20)
      const kind = random.below(12)
      if (kind === 0) {
        if (touches('changes', from, end)) continue
        const [first, last] = [Math.ceil(offset / BLOCK) * BLOCK, Math.floor((offset + length) / BLOCK) * BLOCK]
        if (last <= first) continue
        mine.discards.push([from, end])
        history.submitted(first, last - first)
        pending.push(answered(submit(volume, OP.DISCARD, offset, length), () => undefined))
        continue
      }
      mine.changes.push([from, end])
      const start = random.below(this.#source.length - length)
      const data = kind < 3 ? undefined : this.#source.subarray(start, start + length)
      const change = history.submitted(offset, length, data)
      const io = data === undefined ? submit(volume, OP.WRITE_ZEROES, offset, length, {fua, noUnmap: random.oneIn(3)}) : submitWrite(volume, offset, data, {fua})
      const done = (): void => {
        history.acknowledged(change)
        if (fua) history.flushed(change)
      }
      pending.push(answered(io, done))
    }
    this.story.push(`${count} requests`)
    return this.#end(pending, mine.discards).finally(() => this.#inFlight.delete(mine))
  }

  async #end(pending: readonly Promise<boolean>[], discards: readonly Blocks[]): Promise<number> {
    const results = await Promise.all(pending)
    const failed = results.filter(good => !good).length
    // A block that nobody had written since the last snapshot stays as it was; what became of it is seen now.
    if (failed === 0) for (const [from, end] of discards) await this.#learn(from * BLOCK, (end - from) * BLOCK)
    return failed
  }

  async #learn(offset: number, length: number): Promise<void> {
    const {history} = this
    const engine = this.#engine
    if (engine === undefined) return
    for (let at = offset; at < offset + length; at += MOST_BYTES) {
      const bytes = Math.min(MOST_BYTES, offset + length - at)
      const content = await read(engine.volume, at, bytes).catch((error: unknown) => {
        if (this.#engine === engine) throw error
        return undefined
      })
      // Killed since: what comes after it looks at everything.
      if (content === undefined || this.#engine !== engine) return
      const wrong = new Possible(history.possible('done').blocks.slice(at / BLOCK, (at + bytes) / BLOCK)).wrong(content)
      if (wrong.length > 0) throw new Error(`after a discard: blocks ${wrong.map(block => block + at / BLOCK).join(', ')} are wrong`)
      history.settle(content, at)
    }
  }

  /** A snapshot, its name, and what it may hold; `done` when it has been taken. */
  async snapshot(): Promise<void> {
    const name = `s${++this.#names}`
    this.tell(`snapshot ${name}`)
    const snapshot: Snapshot = {content: undefined, possible: this.history.possible('done'), weak: this.history.possible('flushed'), certain: false}
    this.snapshots.set(name, snapshot)
    const floor = snapshot.possible
    await this.engine.takeSnapshot(name, {})
    snapshot.possible = floor.or(this.history.possible('done'))
    snapshot.certain = true
  }

  /** On all replicas, as an engine does. */
  async markRemoved(name: string): Promise<void> {
    this.tell(`snapshot ${name} is removed`)
    this.snapshots.delete(name)
    await Promise.allSettled(this.readable.map(({running}) => running!.replica.markRemoved(`volume-snap-${name}.img`)))
  }

  /** Begins on one replica. */
  async purge(place: Place): Promise<void> {
    this.tell(`replica ${place.index} purges`)
    await place.running!.replica.purge().catch((error: unknown) => {
      if (!isKind(error, 'BUSY') && !isKind(error, 'CONFLICT')) throw error
    })
  }

  get purging(): boolean {
    return this.places.some(({running}) => running?.replica.isPurging === true)
  }

  /** Nothing may be in flight. Waits for rebuilds; one that has lost its source begins again by itself, at any moment. */
  async revert(name: string): Promise<void> {
    this.tell(`reverting to ${name}`)
    for (let attempt = 1; ; attempt++) {
      await this.rebuilt()
      try {
        await this.engine.revert(name)
        break
      } catch (error) {
        if (attempt === 50 || !isKind(error, 'CONFLICT') || !messageOf(error).includes('is being rebuilt')) throw error
      }
    }
    this.history.reset(padded(this.snapshots.get(name)!.content!, this.history.sizeBytes))
  }

  async expand(): Promise<void> {
    const sizeBytes = this.history.sizeBytes + 16 * BLOCK
    this.tell(`expanding to ${sizeBytes}`)
    await this.engine.expand(sizeBytes)
    this.history.grow(sizeBytes)
  }

  /** Takes the replica of a place in; resolves when it takes part in writes, or the engine is about to take it in. */
  async rebuild(place: Place, bytesPerSecond = 0): Promise<void> {
    this.tell(`replica ${place.index} is added`)
    try {
      await this.engine.addReplica(place.running!.address, bytesPerSecond)
    } catch (error) {
      // A rebuild that has lost its source has just been begun again, with another one.
      if (!isKind(error, 'BUSY') || !messageOf(error).includes('is being taken in already')) throw error
    }
  }

  async rebuilt(): Promise<void> {
    await until(() => !this.rebuilding, 'the rebuilds have ended', 60_000)
  }

  /**
   * Nothing is in flight: what is read is right, and all replicas hold the same. `possible`: what it may be after a crash;
   * what is read is on the disks then.
   */
  async check(possible?: Possible): Promise<void> {
    const {volume} = this.engine
    const content = Buffer.alloc(volume.sizeBytes)
    for (let at = 0; at < content.length; at += MOST_BYTES) (await read(volume, at, Math.min(MOST_BYTES, content.length - at))).copy(content, at)
    const wrong = (possible ?? this.history.possible('done')).wrong(content)
    if (wrong.length > 0) throw new Error(`${wrong.length} blocks of the volume are wrong: ${wrong.slice(0, 10).join(', ')}`)
    if (possible === undefined) this.history.settle(content)
    else this.history.reset(content)
    const places = this.readable.filter(({running}) => running?.replica.isPurging === false)
    for (const place of places) await this.#sameFile(place, content)
    for (const [name, snapshot] of this.snapshots) await this.#checkSnapshot(name, snapshot, places)
  }

  async #checkSnapshot(name: string, snapshot: Snapshot, places: readonly Place[]): Promise<void> {
    const having = places.filter(({directory}) => readdirSync(directory).includes(`volume-snap-${name}.img`))
    if (!snapshot.certain && having.length === 0) {
      if (places.length > 0) this.snapshots.delete(name)
      return
    }
    if (having.length < places.length) throw new Error(`snapshot ${name} is on replicas ${having.map(({index}) => index).join(', ')} of ${places.map(({index}) => index).join(', ')}`)
    for (const place of having) {
      if (snapshot.content === undefined) {
        const content = await contentOf(place, name)
        const wrong = snapshot.possible.wrong(content)
        if (wrong.length > 0) throw new Error(`${wrong.length} blocks of snapshot ${name} on replica ${place.index} are wrong: ${wrong.slice(0, 10).join(', ')}`)
        Object.assign(snapshot, {content, certain: true, possible: new Possible([])})
      } else {
        await this.#sameFile(place, snapshot.content, name)
      }
    }
  }

  async #sameFile(place: Place, wanted: Buffer, snapshot?: string): Promise<void> {
    const found = await contentOf(place, snapshot)
    if (found.equals(wanted)) return
    const blocks = Array.from({length: wanted.length / BLOCK}, (_, block) => block).filter(block => !found.subarray(block * BLOCK, (block + 1) * BLOCK).equals(wanted.subarray(block * BLOCK, (block + 1) * BLOCK)))
    throw new Error(`${snapshot === undefined ? 'the volume' : `snapshot ${snapshot}`} on replica ${place.index} (${found.length} bytes, not ${wanted.length}) is wrong in ${blocks.length} blocks: ${blocks.slice(0, 10).join(', ')}`)
  }

  #newDirectory(index: number): string {
    return join(this.options.folder, `r${index}-${++this.#directories}`)
  }

  /** Small and large, aligned and not, up to the end of the volume. */
  #range(near: number | undefined): [offset: number, length: number] {
    const {random} = this
    const size = this.history.sizeBytes
    const most = [BLOCK, 3 * BLOCK, 3 * BLOCK, 32 * BLOCK][random.below(4)]!
    const about = near === undefined ? random.below(size) : near + random.below(2 * most) - most
    let offset = Math.max(0, Math.min(size - 512, about))
    const unit = [1, 512, BLOCK, BLOCK][random.below(4)]!
    offset -= offset % unit
    const length = Math.min(size - offset, random.below(most) + 1)
    return [offset, Math.min(size - offset, Math.ceil(length / unit) * unit)]
  }

  /** Gives back what the directories that are not used any more took. */
  forget(directory: string): void {
    rmSync(directory, {recursive: true, force: true})
  }
}

async function answered(io: Request, good: () => void): Promise<boolean> {
  const {error} = await io.answered
  if (error === 0) good()
  return error === 0
}

function overlaps(ranges: readonly Blocks[], from: number, end: number): boolean {
  return ranges.some(([first, last]) => first < end && from < last)
}

/** From the files. A snapshot for a rebuild may be taken at the same time, and replaces some. */
async function contentOf(place: Place, snapshot?: string): Promise<Buffer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await readContent(place, snapshot)
    } catch (error) {
      if (attempt === 20 || (errnoOf(error) !== 'ENOENT' && !isKind(error, 'CORRUPT'))) throw error
    }
  }
}

async function readContent({directory}: Place, snapshot?: string): Promise<Buffer> {
  await using view = await openVolumeView(directory, snapshot && `volume-snap-${snapshot}.img`)
  const bytes = Buffer.alloc(view.sizeBytes)
  view.reader.readSync(bytes, 0, bytes.length, 0)
  return bytes
}

function padded(content: Buffer, sizeBytes: number): Buffer {
  return Buffer.concat([content, Buffer.alloc(sizeBytes - content.length)])
}
