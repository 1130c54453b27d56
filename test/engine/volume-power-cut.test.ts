// What was flushed is there after a power cut, wherever it comes: LONGHORN_TEST_CUTS of them, of LONGHORN_TEST_SEED.
import {mkdtempSync, rmSync} from 'node:fs'
import {open} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import {missingPlace} from '../replica/support/places.js'
import {PowerCutDisk} from '../replica/support/power-cut-disk.js'
import {Random, seededRandom} from '../replica/support/random.js'
import type {Possible} from './support/block-history.js'
import {Cluster, type Place} from './support/cluster.js'

const CUTS = Number(process.env['LONGHORN_TEST_CUTS'] ?? 1000)
const SIZE = 1024 * 1024
const CUTS_OF_A_RUN = 1000
/** So many other things that the same moment could have left, looked at in each replica by itself. */
const VARIANTS = 30

const place = missingPlace('tmpfs') === undefined ? '/dev/shm' : tmpdir()

t.test('what was flushed survives', async t => {
  // Always the same: what others find is looked into one by one.
  const seeds = seededRandom(t, 41)
  for (let cuts = 0, run = 0; cuts < CUTS; run++) {
    // The first one is that of the printed seed.
    const seed = run === 0 ? seeds.seed : seeds.below(0x1_0000_0000)
    cuts += await oneRun(t, new Random(seed), Math.min(CUTS_OF_A_RUN, CUTS - cuts))
  }
})

async function oneRun(t: Test, random: Random, cuts: number): Promise<number> {
  const folder = mkdtempSync(join(place, 'lh-power-'))
  const disk = new PowerCutDisk()
  await using any = await open(folder, 'r')
  disk.install(any)
  const cluster = await Cluster.start(t, random, {folder, replicas: 2 + random.below(2), sizeBytes: SIZE, adopt: directory => disk.adopt(directory)})
  const run = new Run(cluster, random, disk, join(folder, 'variant'))
  try {
    await run.go(cuts)
    await cluster.close()
    return run.cuts
  } catch (error) {
    console.error(cluster.account)
    throw new Error(`LONGHORN_TEST_SEED=${random.seed}: ${String((error as Error).stack)}`, {cause: error})
  } finally {
    disk.uninstall()
    rmSync(folder, {recursive: true, force: true})
  }
}

class Run {
  cuts = 0
  /** What was under way at the cut. */
  #growing = false
  #revertedTo: Buffer | undefined

  constructor(
    readonly cluster: Cluster,
    readonly random: Random,
    readonly disk: PowerCutDisk,
    readonly scratch: string,
  ) {}

  async go(cuts: number): Promise<void> {
    const {cluster, random} = this
    while (this.cuts < cuts) {
      for (let left = random.below(4); left > 0; left--) {
        if ((await cluster.batch(1 + random.below(12))) > 0) throw new Error('a request failed')
      }
      if (random.oneIn(3)) {
        await cluster.rebuilt()
        await cluster.check()
      }
      if (random.oneIn(3)) await this.#lose()
      // What is in the middle of something when the power goes may fail in any way.
      const ended = Promise.allSettled([random.oneIn(3) ? undefined : cluster.batch(1 + random.below(20)), this.#start()])
      for (let turns = random.below(random.oneIn(2) ? 8 : 80); turns > 0; turns--) await nextTurn()
      const possible = await this.#cut()
      await ended
      await this.#recover(possible)
    }
  }

  /** Begins something; what it is when the power goes is somewhere in the middle. */
  async #start(): Promise<void> {
    const {cluster, random} = this
    const names = [...cluster.snapshots.keys()]
    const name = names[random.below(Math.max(1, names.length))]
    switch (random.below(9)) {
      case 0:
      case 1:
        if (names.length < 4) await cluster.snapshot()
        else await cluster.markRemoved(name!)
        return
      case 2:
        if (name !== undefined) await cluster.markRemoved(name)
        for (const one of cluster.readable) await cluster.purge(one)
        return
      case 3:
        if (cluster.history.sizeBytes > 2 * SIZE) return
        this.#growing = true
        await cluster.expand()
        this.#growing = false
        return
      case 4:
        if (name === undefined || cluster.rebuilding || cluster.snapshots.get(name)!.content === undefined) return
        this.#revertedTo = cluster.snapshots.get(name)!.content
        await cluster.revert(name)
        return
      case 5:
      case 6:
      case 7:
        for (const place of cluster.places) if (!cluster.readable.includes(place)) await cluster.rebuild(place, random.oneIn(3) ? 4 * SIZE : 0)
        return
      default:
        return cluster.closeEngine()
    }
  }

  /** The power of one replica goes, and it comes back. */
  async #lose(): Promise<void> {
    const {cluster, random} = this
    const readable = cluster.readable
    const place = readable[random.below(readable.length)]
    if (place === undefined || readable.length < 2) return
    const batch = cluster.batch(1 + random.below(12))
    for (let turns = random.below(4); turns > 0; turns--) await nextTurn()
    cluster.killReplica(place, (from, to) => this.#capture(from, to))
    this.cuts += 1
    if ((await batch) > 0) throw new Error('a request failed')
    if (random.oneIn(2)) await cluster.batch(1 + random.below(12))
    await cluster.settled()
    await cluster.startReplica(place)
  }

  #capture(from: string, to: string): void {
    this.disk.cut(from, to, this.random)
    this.disk.forget(from)
  }

  async #cut(): Promise<Possible> {
    const {cluster} = this
    const variants: (() => Promise<void>)[] = []
    const readable = new Set(cluster.readable)
    const certain = [...cluster.snapshots].filter(([, {certain, content}]) => certain && content !== undefined).map(([name, {content}]) => ({name, content: content!}))
    const capture = (from: string, to: string): void => {
      const place = cluster.places.find(({directory}) => directory === to) ?? cluster.places.find(one => to.includes(`/r${one.index}-`))!
      if (readable.has(place)) {
        for (let variant = 0; variant < VARIANTS; variant++) {
          const at = `${this.scratch}-${place.index}-${variant}`
          this.disk.cut(from, at, this.random)
          variants.push(() => this.#checkVariant(place, at, possible, certain))
        }
      }
      this.cuts += 1
      this.#capture(from, to)
    }
    const possible = cluster.cutPower(capture, this.#revertedTo)
    this.#revertedTo = undefined
    for (const check of variants) await check()
    return possible
  }

  async #checkVariant(place: Place, directory: string, possible: Possible, snapshots: readonly {readonly name: string; readonly content: Buffer}[]): Promise<void> {
    this.cuts += 1
    const volume = await openReplica(directory)
    const content = Buffer.alloc(volume.sizeBytes)
    volume.readSync(content, 0, content.length, 0)
    const wrong = possible.wrong(content)
    if (wrong.length > 0) throw new Error(`replica ${place.index} by itself, in ${directory}: blocks ${wrong.slice(0, 10).join(', ')} are wrong`)
    for (const {name, content: wanted} of snapshots) {
      await using view = await openVolumeView(directory, `volume-snap-${name}.img`)
      const found = Buffer.alloc(view.sizeBytes)
      view.reader.readSync(found, 0, found.length, 0)
      if (!found.equals(wanted)) throw new Error(`replica ${place.index} by itself, in ${directory}: snapshot ${name} is wrong`)
    }
    await volume.close()
    rmSync(directory, {recursive: true})
  }

  async #recover(possible: Possible): Promise<void> {
    const {cluster, random} = this
    await cluster.bury()
    await cluster.settled()
    for (const place of cluster.places) if (place.running === undefined) await cluster.startReplica(place)
    const {sizeBytes} = cluster.history
    await cluster.startEngine(this.#growing ? [sizeBytes + 16 * 4096, sizeBytes] : [sizeBytes])
    this.#growing = false
    await cluster.check(possible)
    if (random.oneIn(3)) return
    await cluster.rebuilt()
    for (const place of cluster.places) {
      if (cluster.readable.includes(place)) continue
      await cluster.rebuild(place)
      await cluster.rebuilt()
    }
    if (cluster.readable.length < cluster.places.length) throw new Error('a replica could not be taken in')
    await cluster.check()
  }
}

function nextTurn(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}
