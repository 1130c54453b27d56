import t, {type Test} from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import {freezeHead} from './support/freeze.js'
import {freshPath, missingPlace, PLACES} from './support/places.js'
import {seededRandom, type Random} from './support/random.js'
import {VolumeModel} from './support/volume-model.js'

const STEPS = Number(process.env['LONGHORN_TEST_STEPS'] ?? 1500)
/** Several segments of 2 MiB, and an end inside a block. */
const SIZE = 9 * 1024 ** 2 + 5 * 512
const BLOCK = 4096

for (const place of PLACES) {
  t.test(`a replica on ${place} behaves like a buffer`, {skip: missingPlace(place) ?? false}, async t => {
    const directory = freshPath(t, place)
    await createReplica(directory, SIZE)
    const run = new ModelRun(t, seededRandom(t), directory)
    await run.go()
  })
}

/** Random batches of concurrent operations, and now and then a reopen, a kill or a snapshot. */
class ModelRun {
  readonly #model = new VolumeModel(SIZE)
  readonly #snapshots: {layer: string; content: Buffer}[] = []
  readonly #source = Buffer.alloc(2 * 1024 ** 2)

  constructor(
    readonly t: Test,
    readonly random: Random,
    readonly directory: string,
  ) {
    random.fill(this.#source)
  }

  #abandoned = false

  #zeros(block: number): boolean {
    return this.#model.content.subarray(block * BLOCK, (block + 1) * BLOCK).every(byte => byte === 0)
  }

  async go(): Promise<void> {
    let volume = await openReplica(this.directory)
    let operations = 0
    for (let step = 0; step < STEPS; step++) {
      operations += await this.#batch(volume, step)
      if (this.random.oneIn(10)) this.#check(volume, step)
      if (!this.random.oneIn(25)) continue
      if (this.random.oneIn(2)) {
        this.#abandoned = true
        await volume.abandon()
      } else {
        await volume.close()
      }
      await this.#checkLayers(step)
      if (this.random.oneIn(3) && this.#snapshots.length < 12) await this.#snapshot()
      volume = await openReplica(this.directory)
      this.#check(volume, step)
    }
    this.#check(volume, STEPS)
    await volume.close()
    await this.#checkLayers(STEPS)
    for (const {layer, content} of this.#snapshots) {
      await using view = await openVolumeView(this.directory, layer)
      const read = Buffer.alloc(SIZE)
      await view.reader.read(read, 0, SIZE, 0)
      this.#same(read, content, 0, `${layer} at the end`)
    }
    this.t.pass(`${operations} operations over ${this.#snapshots.length + 1} layers`)
  }

  /** Several operations at once, without waiting in between. How many. */
  async #batch(volume: ReplicaVolume, step: number): Promise<number> {
    const count = 1 + this.random.below(8)
    const pending: unknown[] = []
    const reads: {target: Buffer; expected: Buffer; offset: number}[] = []
    // Half of the batches happen in one place, so that operations meet.
    const near = this.random.oneIn(2) ? this.random.below(SIZE) : undefined
    const changed: [from: number, to: number][] = []
    for (let index = 0; index < count; index++) {
      const [offset, length] = this.#range(near)
      if (this.random.oneIn(6)) {
        const target = Buffer.alloc(length)
        pending.push(volume.read(target, 0, length, offset))
        reads.push({target, expected: Buffer.from(this.#model.content.subarray(offset, offset + length)), offset})
        continue
      }
      changed.push([offset, offset + length])
      pending.push(this.#change(volume, offset, length))
    }
    await Promise.all(pending)
    for (const {target, expected, offset} of reads) {
      // A read beside a change of the same blocks may see either; any other must be right.
      const met = changed.some(([from, to]) => from < offset + target.length + BLOCK && offset < to + BLOCK)
      if (!met) this.#same(target, expected, offset, `a read in step ${step}`)
    }
    return count
  }

  #change(volume: ReplicaVolume, offset: number, length: number): unknown {
    const start = this.random.below(this.#source.length - length)
    const data = this.#source.subarray(start, start + length)
    const durable = this.random.oneIn(30)
    switch (this.random.below(8)) {
      case 0:
        this.#model.discard(offset, length)
        return volume.discard(offset, length, durable)
      case 1:
      case 2: {
        const mayUnmap = this.random.oneIn(2)
        this.#model.writeZeroes(offset, length, mayUnmap)
        return volume.writeZeroes(offset, length, mayUnmap, durable)
      }
      default:
        if (this.random.oneIn(20)) return volume.flush()
        this.#model.write(data, offset)
        return volume.write(this.#source, start, length, offset, durable)
    }
  }

  /** Small and large, aligned and not, up to the end of the volume. */
  #range(near: number | undefined): [offset: number, length: number] {
    const most = [BLOCK, 3 * BLOCK, 40 * BLOCK, 400 * BLOCK][this.random.below(4)] ?? BLOCK
    const about = near === undefined ? this.random.below(SIZE) : near + this.random.below(2 * most) - most
    let offset = Math.max(0, Math.min(SIZE, about))
    let length = Math.min(SIZE - offset, this.random.below(most + 1))
    const unit = [1, 512, BLOCK, BLOCK][this.random.below(4)] ?? 1
    offset -= offset % unit
    length = this.random.oneIn(15) ? Math.min(SIZE - offset, most) : length - (length % unit)
    return [offset, length]
  }

  async #snapshot(): Promise<void> {
    const layer = await freezeHead(this.directory, `s${this.#snapshots.length}`)
    this.#snapshots.push({layer, content: Buffer.from(this.#model.content)})
    this.#model.snapshot()
  }

  #check(volume: ReplicaVolume, step: number): void {
    const read = Buffer.alloc(SIZE, 0xff)
    volume.readSync(read, 0, SIZE, 0)
    this.#same(read, this.#model.content, 0, `the volume after step ${step}`)
    let end = 0
    for (const {offset, length, data} of volume.status(0, SIZE)) {
      if (offset !== end) throw new Error(`step ${step}: a gap in the status at ${end}`)
      end = offset + length
      for (let block = offset / BLOCK; block * BLOCK < end; block++) {
        if ((this.#model.holder(block) > 0) !== data) throw new Error(`step ${step}: block ${block} is said to be ${data ? 'data' : 'empty'}`)
      }
    }
    if (end !== SIZE) throw new Error(`step ${step}: the status ends at ${end}`)
  }

  /** What the files say, seen with fresh eyes. */
  async #checkLayers(step: number): Promise<void> {
    await using view = await openVolumeView(this.directory)
    for (let block = 0; block < this.#model.blocks; block++) {
      const [found, wanted] = [view.reader.stack.map.lookup(block), this.#model.holder(block)]
      // In a dirty directory space that was never written may be what a power cut left: nobody counts it before an open has looked.
      if (found === 0 && this.#abandoned && this.#zeros(block)) continue
      if (found !== wanted) throw new Error(`after step ${step} layer ${found} holds block ${block} on disk, not ${wanted}`)
    }
  }

  #same(found: Buffer, wanted: Buffer, offset: number, what: string): void {
    if (found.equals(wanted)) return
    const at = found.findIndex((byte, index) => byte !== wanted[index])
    const block = Math.floor((offset + at) / BLOCK)
    throw new Error(`${what} is wrong at ${offset + at} (block ${block}): ${found[at]}, not ${wanted[at]}`)
  }
}
