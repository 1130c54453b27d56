import {readdirSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {setImmediate} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import type {SnapshotSpec} from '../../src/replica/snapshot.js'
import {FaultyDisk, stops} from './support/faulty-disk.js'

const BLOCK = 4096
const BLOCKS = 16
const SIZE = BLOCKS * BLOCK

function spec(name: string): SnapshotSpec {
  return {name, userCreated: true, created: '2026-01-02T03:04:05Z', labels: {b: '2', a: '1'}}
}

async function newReplica(t: Test): Promise<string> {
  const directory = join(t.testdir({}), `r${Math.random()}`)
  await createReplica(directory, SIZE, {revisionCounter: true})
  return directory
}

function write(volume: ReplicaVolume, block: number, value: number): void {
  void volume.write(Buffer.alloc(BLOCK, value), 0, BLOCK, block * BLOCK)
}

/** The first byte of each block. */
async function content(directory: string, layer?: string): Promise<number[]> {
  await using view = await openVolumeView(directory, layer)
  const bytes = Buffer.alloc(view.sizeBytes)
  view.reader.readSync(bytes, 0, bytes.length, 0)
  return Array.from({length: bytes.length / BLOCK}, (_, block) => bytes[block * BLOCK]!)
}

function values(...pairs: readonly (readonly [block: number, value: number])[]): number[] {
  const result = new Array<number>(BLOCKS).fill(0)
  for (const [block, value] of pairs) result[block] = value
  return result
}

t.test('a snapshot keeps what was there, and the volume goes on', async t => {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  write(volume, 0, 1)
  write(volume, 1, 1)
  await volume.snapshot(spec('a'))
  write(volume, 1, 2)
  await volume.discard(0, BLOCK)
  await volume.writeZeroes(2 * BLOCK, BLOCK, false)
  await volume.snapshot(spec('b'))
  write(volume, 2, 3)
  const a = values([0, 1], [1, 1])
  const b = values([0, 1], [1, 2])
  const now = values([0, 1], [1, 2], [2, 3])
  t.same(await content(directory, 'volume-snap-a.img'), a)
  t.same(await content(directory, 'volume-snap-b.img'), b)
  t.same(await content(directory), now)
  t.same(volume.directory.chain.map(layer => layer.file), ['volume-snap-a.img', 'volume-snap-b.img', 'volume-head-002.img'])
  await volume.close()
  t.same(readdirSync(directory), [
    'revision.counter',
    'volume-head-002.img',
    'volume-head-002.img.meta',
    'volume-snap-a.img',
    'volume-snap-a.img.meta',
    'volume-snap-b.img',
    'volume-snap-b.img.meta',
    'volume.meta',
  ])
  t.equal(
    readFileSync(join(directory, 'volume-snap-b.img.meta'), 'utf8'),
    '{"Name":"volume-head-001.img","Parent":"volume-snap-a.img","Removed":false,"UserCreated":true,"Created":"2026-01-02T03:04:05Z","Labels":{"a":"1","b":"2"}}\n',
  )
  t.match(readFileSync(join(directory, 'volume.meta'), 'utf8'), '"Head":"volume-head-002.img","Dirty":false')
  await using again = await openReplica(directory)
  t.same(again.leftovers, [])
  t.same(await content(directory), now)
  t.same(await content(directory, 'volume-snap-a.img'), a)
})

t.test('a discard after a snapshot does not bring back what lies below', async t => {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  write(volume, 0, 1)
  await volume.snapshot(spec('a'))
  write(volume, 0, 2)
  write(volume, 1, 2)
  await volume.discard(0, 2 * BLOCK)
  await volume.close()
  t.same(await content(directory), values())
  t.same(await content(directory, 'volume-snap-a.img'), values([0, 1]))
})

t.test('what is asked for while a snapshot is being taken is not in it', async t => {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  await volume.prepareSnapshot(spec('a'))
  write(volume, 0, 1)
  const taking = volume.snapshot(spec('a'))
  const later = volume.write(Buffer.alloc(BLOCK, 1), 0, BLOCK, BLOCK)
  const zeroed = volume.writeZeroes(0, BLOCK, true)
  t.ok(later instanceof Promise, 'it waits')
  await Promise.all([taking, later, zeroed, volume.flush()])
  t.same(await content(directory, 'volume-snap-a.img'), values([0, 1]))
  t.same(await content(directory), values([1, 1]))
  await volume.close()
})

t.test('reads and durable writes go on across many snapshots', async t => {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  let going = true
  let reads = 0
  const reader = (async () => {
    const target = Buffer.alloc(SIZE)
    for (; going; reads++) {
      await volume.read(target, 0, SIZE, 0)
      await setImmediate()
    }
  })()
  for (let round = 1; round <= 30; round++) {
    await volume.prepareSnapshot(spec(`s${round}`))
    const durable = volume.write(Buffer.alloc(BLOCK, round), 0, BLOCK, (round % BLOCKS) * BLOCK, true)
    await Promise.all([durable ?? [], volume.snapshot(spec(`s${round}`)), volume.flush()])
  }
  going = false
  await reader
  t.ok(reads > 0)
  await volume.close()
  t.same(await content(directory, 'volume-snap-s9.img'), values(...Array.from({length: 9}, (_, index) => [index + 1, index + 1] as const)))
  t.equal(readdirSync(directory).filter(name => name.startsWith('volume-head')).length, 2, 'old heads are gone')
})

t.test('what cannot be a snapshot changes nothing', async t => {
  const directory = await newReplica(t)
  const first = await openReplica(directory)
  write(first, 0, 1)
  await first.snapshot(spec('a'))
  await first.close()
  const before = readdirSync(directory)
  const volume = await openReplica(directory)
  await t.rejects(volume.snapshot(spec('a')), {code: 'LH_CONFLICT', message: /volume-snap-a\.img is already existing/})
  for (const name of ['', 'x/y', 'n'.repeat(300)]) await t.rejects(volume.snapshot(spec(name)), {code: 'LH_USAGE'})
  await volume.prepareSnapshot(spec('b'))
  await volume.prepareSnapshot(spec('c'))
  await volume.discardPrepared()
  await volume.discardPrepared()
  t.same(readdirSync(directory), before)
  await volume.prepareSnapshot(spec('d'))
  await volume.close()
  t.same(readdirSync(directory), before, 'nor does closing with one prepared')
  t.same(await content(directory), values([0, 1]))
})

t.test('stopped at every step, with every combination of lost names: with the snapshot or without it, and nothing else', async t => {
  const whole = new FaultyDisk(Infinity)
  await run(await newReplica(t), whole)
  t.ok(whole.steps > 8)
  let cases = 0
  let taken = 0
  for (let step = 0; step <= whole.steps; step++) {
    for (let mask = 0, count = 1; mask < count; mask++) {
      const directory = await newReplica(t)
      const disk = new FaultyDisk(step)
      await run(directory, disk)
      count = Math.min(1 << disk.unsynced, 64)
      disk.losePower(mask)
      const what = `step ${step}, lost ${mask.toString(2)}`
      const volume = await openReplica(directory)
      await volume.snapshot(spec('next'))
      await volume.close()
      const now = await content(directory)
      t.same(now.slice(1), values().slice(1), what)
      t.ok(now[0] === 1 || now[0] === 2, what)
      const files = readdirSync(directory)
      const heads = files.filter(name => /^volume-head-\d+\.img$/.test(name))
      t.equal(heads.length, 1, `${what}: ${heads.join(' ')}`)
      t.notOk(files.some(name => name.endsWith('.tmp')), what)
      t.same(await content(directory, 'volume-snap-next.img'), now, what)
      if (files.includes('volume-snap-a.img')) {
        t.same(await content(directory, 'volume-snap-a.img'), values([0, 1]), what)
        taken += 1
      }
      cases += 1
    }
  }
  t.ok(taken > 1 && cases - taken > 10, `${cases} crashes, the snapshot was there after ${taken}`)
})

/** Takes a snapshot and writes on without a flush, on a machine that may stop. */
async function run(directory: string, disk: FaultyDisk): Promise<void> {
  const before = await openReplica(directory)
  write(before, 0, 1)
  await before.close()
  const opening = openReplica(directory, {disk})
  if (await stops(opening)) return
  const volume = await opening
  const taking = volume.snapshot(spec('a'))
  if (!(await stops(taking))) write(volume, 0, 2)
  await volume.flush().catch(() => undefined)
  await volume.abandon()
}
