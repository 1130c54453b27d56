import {closeSync, fsyncSync, openSync, readdirSync, rmSync, statSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import {setImmediate} from 'node:timers/promises'
import t, {type Test} from 'tap'
import type {Log} from '../../src/lib/log.js'
import {createReplica} from '../../src/replica/create-replica.js'
import type {DiskSteps} from '../../src/replica/disk-steps.js'
import {writeLayerMeta} from '../../src/replica/layer-meta-file.js'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import {Purge} from '../../src/replica/purge/purge.js'
import {nextPurgeStep, type PlanLayer} from '../../src/replica/purge/purge-plan.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import {memoryLog} from '../engine/support/fake-replicas.js'
import {FaultyDisk} from './support/faulty-disk.js'
import {seededRandom} from './support/random.js'
import {mountSmall, SMALL_FILE_SYSTEMS} from './support/small-file-system.js'

const BLOCK = 4096
const BLOCKS = 64
const SIZE = BLOCKS * BLOCK
const log: Log = memoryLog().log

async function newReplica(t: Test): Promise<string> {
  const directory = join(t.testdir({}), `r${Math.random()}`)
  await createReplica(directory, SIZE)
  return directory
}

function write(volume: ReplicaVolume, block: number, value: number, count = 1): void {
  void volume.write(Buffer.alloc(count * BLOCK, value), 0, count * BLOCK, block * BLOCK)
}

async function snapshot(volume: ReplicaVolume, name: string, userCreated = true): Promise<void> {
  await volume.snapshot({name, userCreated, created: '2026-01-02T03:04:05Z', labels: {}})
}

async function remove(volume: ReplicaVolume, name: string): Promise<void> {
  const layer = volume.directory.chain.find(({file}) => file === `volume-snap-${name}.img`)!
  const meta = {...layer.meta, removed: true}
  await writeLayerMeta(volume.directory.path, layer.file, meta, volume.disk)
  volume.describeLayer(layer.file, meta)
}

/** The purge's error, '' for none. */
async function purge(volume: ReplicaVolume): Promise<string> {
  const purging = Purge.start(volume, step => step(), log)
  await purging.ended()
  return purging.status.error
}

/** The first byte of each of the first blocks. */
async function content(directory: string, snapshotName?: string): Promise<number[]> {
  await using view = await openVolumeView(directory, snapshotName && `volume-snap-${snapshotName}.img`)
  const bytes = Buffer.alloc(SIZE)
  view.reader.readSync(bytes, 0, SIZE, 0)
  return Array.from({length: BLOCKS}, (_, block) => bytes[block * BLOCK]!)
}

function snapshotsIn(directory: string): string[] {
  return readdirSync(directory).flatMap(name => /^volume-snap-(.+)\.img$/.exec(name)?.[1] ?? [])
}

t.test('the plan', async t => {
  const plan = (text: string, pruned: string[] = []) => {
    const layers = text.split(' ').map((part): PlanLayer => {
      const [file = '', parent = ''] = part.replace('-', '').split('<')
      return {file, parent, removed: part.startsWith('-')}
    })
    return nextPurgeStep(layers, 'head', new Set(pruned))
  }
  t.equal(plan('a b<a head<b'), undefined)
  t.same(plan('-a b<a head<b'), {kind: 'merge', lower: 'a', upper: 'b'})
  t.same(plan('a -b<a head<b'), {kind: 'prune', layer: 'b'})
  t.equal(plan('a -b<a head<b', ['b']), undefined)
  t.same(plan('-a -b<a head<b'), {kind: 'merge', lower: 'a', upper: 'b'}, 'what is under the head comes last')
  t.same(plan('a b<a -c<b head<a'), {kind: 'remove', layer: 'c'}, 'the end of another branch')
  t.equal(plan('-a b<a head<a'), undefined, 'two stand on it')
  t.equal(plan('a head<a'), undefined)
})

t.test('removed snapshots go, the others and the volume stay what they are', async t => {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  write(volume, 0, 1, 40)
  await snapshot(volume, 'large')
  write(volume, 2, 2, 2)
  await snapshot(volume, 'small')
  write(volume, 3, 3, 30)
  await volume.discard(5 * BLOCK, BLOCK)
  await snapshot(volume, 'kept')
  write(volume, 50, 4, 3)
  await snapshot(volume, 'system', false)
  write(volume, 51, 5)
  await volume.writeZeroes(0, BLOCK, true)
  const before = {kept: await content(directory, 'kept'), now: await content(directory)}
  await remove(volume, 'large')
  await remove(volume, 'small')
  const used = (): number => readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).blocks, 0)
  const usedBefore = used()
  t.equal(await purge(volume), '')
  t.same(snapshotsIn(directory), ['kept', 'system'], 'what is under the head stays, with what the head does not hide')
  t.ok(used() < usedBefore - (20 * BLOCK) / 512, `${usedBefore} blocks became ${used()}`)
  const check = async (what: string): Promise<void> => {
    t.same(await content(directory, 'kept'), before.kept, what)
    t.same(await content(directory), before.now, what)
  }
  await check('while it is open')
  const live = Buffer.alloc(SIZE)
  volume.readSync(live, 0, SIZE, 0)
  t.same(Array.from({length: BLOCKS}, (_, block) => live[block * BLOCK]), before.now)
  await snapshot(volume, 'more')
  t.equal(await purge(volume), '')
  t.same(snapshotsIn(directory), ['kept', 'more'])
  await volume.close()
  await check('after a reopen')
})

t.test('while it is being read and written', async t => {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  const model = Buffer.alloc(SIZE)
  let going = true
  let wrong = 0
  const work = (async () => {
    const random = seededRandom(t)
    const seen = Buffer.alloc(SIZE)
    while (going) {
      const [block, value] = [random.below(BLOCKS), random.below(255) + 1]
      await volume.write(Buffer.alloc(BLOCK, value), 0, BLOCK, block * BLOCK)
      model.fill(value, block * BLOCK, (block + 1) * BLOCK)
      await volume.read(seen, 0, SIZE, 0)
      if (!seen.equals(model)) wrong += 1
      await setImmediate()
    }
  })()
  for (let round = 0; round < 12; round++) {
    await snapshot(volume, `s${round}`)
    await setImmediate()
    if (round > 1) await remove(volume, `s${round - 2}`)
    if (round % 3 === 2) t.equal(await purge(volume), '')
  }
  going = false
  await work
  t.equal(wrong, 0)
  t.same(snapshotsIn(directory), ['s10', 's11'])
  await volume.close()
})

/** One snapshot of many blocks below one of few, or the other way round; the lower one is removed. */
async function prepared(t: Test, lower: number, upper: number): Promise<string> {
  const directory = await newReplica(t)
  const volume = await openReplica(directory)
  write(volume, 0, 1, lower)
  await snapshot(volume, 'lower')
  write(volume, 1, 2, upper)
  await snapshot(volume, 'upper')
  write(volume, 2, 3)
  await remove(volume, 'lower')
  await volume.close()
  return directory
}

for (const [name, lower, upper] of [['up', 4, 20], ['down', 20, 4]] as const) {
  t.test(`stopped at every step of merging ${name}, with every combination of lost names`, async t => {
    const run = async (directory: string, disk?: DiskSteps): Promise<void> => {
      const volume = await openReplica(directory, disk === undefined ? {} : {disk})
      await purge(volume)
      await volume.abandon()
    }
    const whole = new FaultyDisk(Infinity)
    await run(await prepared(t, lower, upper), whole)
    let cases = 0
    for (let step = 3; step < whole.steps; step++) {
      for (let mask = 0, count = 1; mask < count; mask++) {
        const directory = await prepared(t, lower, upper)
        const before = {upper: await content(directory, 'upper'), now: await content(directory)}
        const disk = new FaultyDisk(step)
        await run(directory, disk).catch(() => undefined)
        count = Math.min(1 << disk.unsynced, 32)
        disk.losePower(mask)
        const what = `step ${step}, lost ${mask.toString(2)}`
        t.same(await content(directory, 'upper'), before.upper, what)
        t.same(await content(directory), before.now, what)
        await run(directory)
        t.same(snapshotsIn(directory), ['upper'], `${what}: the next one finishes it`)
        t.same(await content(directory, 'upper'), before.upper, what)
        t.same(await content(directory), before.now, what)
        t.notOk(readdirSync(directory).some(file => file.endsWith('.tmp')), what)
        cases += 1
      }
    }
    t.ok(cases > 5, `${cases} crashes`)
  })
}

for (const kind of SMALL_FILE_SYSTEMS) {
  t.test(`on a full ${kind} a snapshot and a purge fail, and nothing else changes`, async t => {
    const place = mountSmall(t, kind, kind === 'xfs' ? 320 : 24)
    if (place === undefined) return
    const directory = join(place, 'r')
    await createReplica(directory, 512 * 1024 * 1024)
    const volume = await openReplica(directory)
    write(volume, 0, 1, 20)
    await snapshot(volume, 'lower')
    write(volume, 10, 2, 30)
    await snapshot(volume, 'upper')
    write(volume, 20, 3)
    await remove(volume, 'lower')
    const before = {upper: await content(directory, 'upper'), now: await content(directory)}
    await volume.flush()
    const filler = openSync(join(place, 'filler'), 'w')
    t.throws(() => {
      for (const bytes of [1024 * 1024, 4096, 1]) {
        try {
          for (;;) writeSync(filler, Buffer.alloc(bytes))
        } catch (error) {
          if (bytes === 1) throw error
        }
      }
    }, {code: 'ENOSPC'})
    fsyncSync(filler)
    closeSync(filler)
    const errors = [await volume.snapshot({name: 'more', userCreated: true, created: '2026-01-02T03:04:05Z', labels: {}}).then(() => '', String), await purge(volume)]
    t.comment(errors.join('; '))
    for (const error of errors) t.ok(error === '' || /no space left on device/.test(error), error)
    t.same(await content(directory, 'upper'), before.upper)
    t.same(await content(directory), before.now)
    t.equal(volume.failure, undefined)
    rmSync(join(place, 'filler'))
    await volume.snapshot({name: 'later', userCreated: true, created: '2026-01-02T03:04:05Z', labels: {}})
    t.equal(await purge(volume), '', 'with space again it goes on')
    t.notOk(snapshotsIn(directory).includes('lower'))
    t.same(await content(directory, 'upper'), before.upper)
    t.same(await content(directory), before.now)
    await volume.close()
  })
}
