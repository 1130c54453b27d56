// Processes are killed at random moments under a load that knows what was acknowledged, and one by fio.
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {seededRandom, type Random} from '../replica/support/random.js'
import {replicaImage} from '../support/replica-image.js'
import {verifyByFio, withoutFio} from './support/fio.js'
import {LiveVolume, type EngineOptions} from './support/live-volume.js'
import {Load} from './support/load.js'
import {StampedBlocks} from './support/stamped-blocks.js'

const MIB = 1024 * 1024
const SIZE = 48 * MIB
const ROUNDS = 3

t.test('the engine is killed, and another one takes the replicas over', async t => {
  const {volume, random, blocks, uri} = await begin(t, 2)
  for (let round = 0, load = await Load.start(uri, blocks); round < ROUNDS; round++) {
    await sleep(200 + random.below(700))
    await volume.engine.kill()
    await load.end()
    await checkFiles(t, volume, blocks, `round ${round}`)
    load = await Load.start(await volume.startEngine(), blocks)
    await volume.resynced()
    if (round === ROUNDS - 1) await load.stop()
  }
  await volume.stop()
  await checkFiles(t, volume, blocks, 'at the end')
})

t.test('everything is killed', async t => {
  const {volume, random, blocks, uri} = await begin(t, 2)
  for (let round = 0, load = await Load.start(uri, blocks); round < ROUNDS; round++) {
    await sleep(200 + random.below(700))
    await volume.killAll()
    await load.end()
    await checkFiles(t, volume, blocks, `round ${round}`)
    load = await Load.start(await volume.start(), blocks)
    await volume.resynced()
    if (round === ROUNDS - 1) await load.stop()
  }
  await volume.stop()
  await checkFiles(t, volume, blocks, 'at the end')
})

t.test('one replica after the other is killed', async t => {
  const {volume, random, blocks, uri} = await begin(t, 3)
  const load = await Load.start(uri, blocks)
  for (const victim of [2, 0]) {
    await sleep(200 + random.below(500))
    await volume.killReplica(victim)
    await load.goesOn(500)
  }
  t.same(await volume.modes(), ['ERR', 'RW', 'ERR'])
  await load.stop()
  t.equal(metaOf(volume, 1).Dirty, true)
  await volume.engine.stop()
  t.same(blocks.faults(await contentOf(volume, 1)), [], 'the last replica has everything')
  t.equal(metaOf(volume, 1).Dirty, false, 'and is clean')
  t.equal(metaOf(volume, 0).Dirty, true, 'which those that were killed are not')
  await volume.stopReplicas()
})

t.test('a replica hangs', async t => {
  const {volume, blocks, uri} = await begin(t, 2, {flags: ['--engine-replica-timeout', '10']})
  const load = await Load.start(uri, blocks)
  await load.goesOn(100)
  volume.replica(1).suspend()
  const since = performance.now()
  await load.goesOn(1000)
  t.ok(performance.now() - since > 1000, 'what it should have answered has waited for it')
  t.same(await volume.modes(), ['RW', 'ERR'], 'and not for long')
  await load.stop()
  await volume.killReplica(1)
  await volume.stop()
  t.same(blocks.faults(await contentOf(volume, 0)), [])
})

t.test('the engine is told to stop under load', async t => {
  const {volume, random, blocks, uri} = await begin(t, 2)
  const load = await Load.start(uri, blocks)
  await sleep(200 + random.below(500))
  await volume.engine.stop()
  await load.end()
  await checkFiles(t, volume, blocks, 'after the stop')
  t.ok((await contentOf(volume, 0)).equals(await contentOf(volume, 1)), 'both replicas are the same')
  t.same([0, 1].map(index => metaOf(volume, index).Dirty), [false, false], 'and clean')
  await volume.stopReplicas()
})

t.test('the engine is started once more while it runs', async t => {
  const {volume, blocks, uri} = await begin(t, 2)
  const load = await Load.start(uri, blocks)
  await load.goesOn(100)
  await t.rejects(volume.startEngine({listen: volume.control}), /LH_CONFLICT.*in use/s, 'at the same address')
  await load.goesOn(100)
  await t.rejects(volume.startEngine(), /LH_CONFLICT.*in use/s, 'with the same socket')
  await load.goesOn(100)
  t.same(await volume.modes(), ['RW', 'RW'], 'it was refused before it took the replicas away')
  await load.stop()
  await volume.stop()
})

t.test('all replicas are gone', async t => {
  const {volume, blocks, uri} = await begin(t, 1)
  const load = await Load.start(uri, blocks)
  await load.goesOn(100)
  await volume.killReplica(0)
  t.match(await load.fails(), {errno: 5}, 'an I/O error')
  t.same(await volume.modes(), ['ERR'], 'the engine is still there to be asked')
  await volume.engine.stop()
})

t.test('fio does not notice that a replica is killed', {skip: await withoutFio()}, async t => {
  const {volume, random, uri} = await begin(t, 2)
  // It writes for two seconds, and reads all of it back afterwards.
  const fio = verifyByFio(uri, '--rw=randwrite', '--bs=4k', '--iodepth=16', `--size=${SIZE}`, `--rate_iops=${SIZE / 4096 / 2}`, '--fsync=512')
  fio.catch(() => undefined)
  await sleep(700 + random.below(1000))
  await volume.killReplica(0)
  await fio
  t.same(await volume.modes(), ['ERR', 'RW'])
  await volume.stop()
})

async function begin(t: Test, replicas: number, options: EngineOptions = {}): Promise<{volume: LiveVolume; random: Random; blocks: StampedBlocks; uri: string}> {
  const random = seededRandom(t)
  const volume = new LiveVolume(t, {sizeBytes: SIZE, replicas})
  return {volume, random, blocks: new StampedBlocks(SIZE, random), uri: await volume.start(options)}
}

/** What each replica holds; also while it runs. */
async function checkFiles(t: Test, volume: LiveVolume, blocks: StampedBlocks, when: string): Promise<void> {
  for (const index of volume.directories.keys()) {
    t.same(blocks.faults(await contentOf(volume, index)).slice(0, 5), [], `${when}: replica ${index} has all of ${blocks.answers} acknowledged requests`)
  }
}

function contentOf(volume: LiveVolume, replica: number): Promise<Buffer> {
  return replicaImage(volume.directories[replica]!)
}

function metaOf(volume: LiveVolume, replica: number): {Dirty: boolean} {
  return JSON.parse(readFileSync(join(volume.directories[replica]!, 'volume.meta'), 'utf8')) as {Dirty: boolean}
}
