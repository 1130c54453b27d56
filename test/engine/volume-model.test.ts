// What a volume promises, against a model: LONGHORN_TEST_STEPS steps, in runs of their own, of LONGHORN_TEST_SEED.
import {mkdtempSync, rmSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {missingPlace} from '../replica/support/places.js'
import {copyDirectory} from '../replica/support/sparse-copy.js'
import {Random, seededRandom} from '../replica/support/random.js'
import {Cluster} from './support/cluster.js'

const STEPS = Number(process.env['LONGHORN_TEST_STEPS'] ?? 24_000)
const SIZE = 1024 * 1024
const STEPS_OF_A_RUN = 6000

t.test('a volume keeps its promises', async t => {
  // Always the same: what others find is looked into one by one.
  const seeds = seededRandom(t, 197_031_846)
  const tmpfs = missingPlace('tmpfs') === undefined
  for (let steps = 0, run = 0; steps < STEPS; run++) {
    // The first one is that of the printed seed.
    const seed = run === 0 ? seeds.seed : seeds.below(0x1_0000_0000)
    steps += await oneRun(t, new Random(seed), tmpfs && run % 8 !== 7 ? '/dev/shm' : tmpdir(), Math.min(STEPS_OF_A_RUN, STEPS - steps))
  }
})

async function oneRun(t: Test, random: Random, place: string, steps: number): Promise<number> {
  const folder = mkdtempSync(join(place, 'lh-model-'))
  const cluster = await Cluster.start(t, random, {folder, replicas: 2 + random.below(2), sizeBytes: SIZE + 64 * 1024 * random.below(32)})
  try {
    await new Run(cluster, random).go(steps)
    await cluster.close()
    rmSync(folder, {recursive: true})
    return cluster.steps
  } catch (error) {
    console.error(cluster.account)
    throw new Error(`LONGHORN_TEST_SEED=${random.seed}: ${String((error as Error).stack)}`, {cause: error})
  }
}

class Run {
  constructor(
    readonly cluster: Cluster,
    readonly random: Random,
  ) {}

  async go(steps: number): Promise<void> {
    const {cluster, random} = this
    while (cluster.steps < steps) {
      for (let left = random.below(14); left > 0; left--) await this.#good(cluster.batch(1 + random.below(32)))
      await this.#event()
      if (random.oneIn(2)) await cluster.check()
    }
    await this.#whole()
    await cluster.check()
  }

  async #event(): Promise<void> {
    const {cluster, random} = this
    switch (random.below(15)) {
      case 0:
      case 1:
        return this.#snapshot()
      case 2:
        return this.#remove()
      case 3:
      case 4:
        return this.#purge()
      case 5:
        return this.#revert()
      case 6:
        if (cluster.history.sizeBytes < 4 * SIZE) await this.#during(() => cluster.expand())
        return
      case 7:
        return this.#restart()
      case 8:
        return this.#killEngine()
      case 9:
      case 10:
        return this.#killReplica()
      case 11:
      case 12:
        return this.#takeIn()
      case 13:
        return this.#killAll()
      default:
        return cluster.rebuilt()
    }
  }

  /** Nothing happens that could make a request fail. */
  async #good(batch: Promise<number>): Promise<void> {
    const failed = await batch
    if (failed > 0) throw new Error(`${failed} requests failed`)
  }

  /** While requests are in flight, sometimes. */
  async #during(step: () => Promise<void>): Promise<void> {
    const {cluster, random} = this
    const batch = random.oneIn(3) ? undefined : cluster.batch(1 + random.below(24))
    await step()
    if (batch !== undefined) await this.#good(batch)
  }

  async #snapshot(): Promise<void> {
    if (this.cluster.snapshots.size < 4) await this.#during(() => this.cluster.snapshot())
  }

  async #remove(): Promise<void> {
    const {cluster, random} = this
    const names = [...cluster.snapshots.keys()]
    if (names.length > 0) await this.#during(() => cluster.markRemoved(names[random.below(names.length)]!))
  }

  async #purge(): Promise<void> {
    const {cluster, random} = this
    const places = cluster.readable.filter(() => !random.oneIn(3))
    await this.#during(async () => {
      for (const place of places) await cluster.purge(place)
    })
  }

  async #revert(): Promise<void> {
    const {cluster, random} = this
    await cluster.rebuilt()
    await cluster.check()
    // While all replicas purge nobody has looked at a new one.
    const names = [...cluster.snapshots].flatMap(([name, {content}]) => (content === undefined ? [] : [name]))
    if (names.length > 0) await cluster.revert(names[random.below(names.length)]!)
  }

  async #restart(): Promise<void> {
    const {cluster} = this
    await cluster.closeEngine()
    await this.#startStopped(2)
    await cluster.startEngine()
  }

  /** The next one takes over while requests of this one are in flight. */
  async #killEngine(): Promise<void> {
    const {cluster, random} = this
    const batch = cluster.batch(1 + random.below(32))
    for (let turns = random.below(4); turns > 0; turns--) await nextTurn()
    cluster.abandonEngine()
    await this.#startStopped(3)
    await cluster.startEngine()
    await cluster.bury()
    await batch
    await cluster.check()
  }

  async #killReplica(): Promise<void> {
    const {cluster, random} = this
    const running = cluster.places.filter(place => place.running !== undefined)
    const place = running[random.below(running.length)]!
    if (!cluster.readable.some(other => other !== place)) return
    await this.#during(async () => {
      for (let turns = random.below(4); turns > 0; turns--) await nextTurn()
      cluster.killReplica(place, copyDirectory)
      if (random.oneIn(2)) await this.#good(cluster.batch(1 + random.below(8)))
    })
    await cluster.settled()
  }

  async #takeIn(): Promise<void> {
    const {cluster, random} = this
    await cluster.settled()
    const stopped = cluster.places.find(place => place.running === undefined)
    if (stopped !== undefined) await cluster.startReplica(stopped)
    await this.#add(random.oneIn(3) ? 2 * 1024 * 1024 : 0)
  }

  async #add(bytesPerSecond: number): Promise<void> {
    const {cluster} = this
    const readable = new Set(cluster.readable)
    const busy = new Set(cluster.engine.rebuilds.filter(({state}) => state === 'in_progress').map(({address}) => address))
    for (const place of cluster.places) {
      if (place.running === undefined || readable.has(place) || busy.has(place.running.address)) continue
      await this.#during(() => cluster.rebuild(place, bytesPerSecond))
    }
  }

  async #killAll(): Promise<void> {
    const {cluster, random} = this
    const batch = cluster.batch(1 + random.below(32))
    for (let turns = random.below(6); turns > 0; turns--) await nextTurn()
    cluster.abandonEngine()
    for (const place of cluster.places) cluster.killReplica(place, copyDirectory)
    await batch
    await cluster.bury()
    await cluster.settled()
    for (const place of cluster.places) await cluster.startReplica(place)
    await cluster.startEngine()
    await cluster.check()
  }

  async #startStopped(oneIn: number): Promise<void> {
    await this.cluster.settled()
    for (const place of this.cluster.places) {
      if (place.running === undefined && this.random.oneIn(oneIn)) await this.cluster.startReplica(place)
    }
  }

  /** Everything runs, and every replica is up to date. */
  async #whole(): Promise<void> {
    const {cluster} = this
    await cluster.settled()
    for (const place of cluster.places) if (place.running === undefined) await cluster.startReplica(place)
    for (let attempt = 0; attempt < 5 && cluster.readable.length < cluster.places.length; attempt++) {
      await cluster.rebuilt()
      await this.#add(0)
      await cluster.rebuilt()
    }
    if (cluster.readable.length < cluster.places.length) throw new Error('a replica could not be taken in')
  }
}

function nextTurn(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}
