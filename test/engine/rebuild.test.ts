import {cpSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import type {Engine} from '../../src/engine/engine.js'
import {OP} from '../../src/protocol/block-device.js'
import {read, submit, write} from '../support/request.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {engineOptions, runEngine, runReplica, runReplicas, SIZE_BYTES, type RunningReplica} from './support/running.js'

const BLOCK = 4096
const BLOCKS = SIZE_BYTES / BLOCK

/** The first number of each block, of a replica's volume or of one of its snapshots. */
async function numbers({directory}: RunningReplica, snapshot?: string): Promise<number[]> {
  const bytes = await replicaImage(directory, snapshot)
  return Array.from({length: bytes.length / BLOCK}, (_, block) => bytes.readUInt32LE(block * BLOCK))
}

async function fill(engine: Engine, first: number, value: number, count = 1): Promise<void> {
  for (let block = first; block < first + count; block++) {
    const bytes = Buffer.alloc(BLOCK)
    bytes.writeUInt32LE(value)
    await write(engine.volume, block * BLOCK, bytes)
  }
}

async function rebuilt(engine: Engine, address: string): Promise<void> {
  await until(() => engine.rebuilds.find(one => one.address === address)?.state !== 'in_progress', 'the rebuild has ended')
  const info = engine.rebuilds.find(one => one.address === address)
  if (info?.state !== 'complete') throw new Error(`rebuild: ${info?.error}`)
}

t.test('a new replica, with snapshots below', async t => {
  const folder = shortDir(t)
  const [one, two] = await runReplicas(t, folder, 2)
  const {engine} = await runEngine(t, engineOptions([one!]))
  await fill(engine, 0, 1, 300)
  await engine.takeSnapshot('a', {purpose: 'test'})
  await fill(engine, 100, 2, 300)
  await engine.takeSnapshot('b', {})
  await fill(engine, 350, 3, 10)
  await engine.addReplica(two!.address)
  await rebuilt(engine, two!.address)
  t.same(engine.replicas.map(({mode}) => mode), ['RW', 'RW'])
  await fill(engine, 5, 4)
  for (const snapshot of ['a', 'b', undefined]) t.same(await numbers(two!, snapshot), await numbers(one!, snapshot), `${snapshot}`)
  t.match(await two!.rpc.replicaGet(), {replica: {state: 'dirty', rebuilding: false}})
  const snapshots = async ({rpc}: RunningReplica): Promise<string> => {
    const {chain} = (await rpc.replicaGet()).replica!
    return chain.filter(name => !name.includes('head')).join()
  }
  // Each gives back the space of what the rebuild has left in its own time.
  await until(async () => (await snapshots(one!)) === (await snapshots(two!)), 'they have the same layers')
  t.match(await snapshots(two!), /volume-snap-b\.img,volume-snap-a\.img$/)
  t.equal((await read(engine.volume, 5 * BLOCK, 4)).readUInt32LE(), 4)
})

t.test('from several sources, as long as they have the same layers', async t => {
  const folder = shortDir(t)
  const [one, two, three, four] = await runReplicas(t, folder, 4)
  const {engine} = await runEngine(t, engineOptions([one!, two!]))
  await fill(engine, 0, 1, BLOCKS)
  await engine.takeSnapshot('a', {})
  await fill(engine, 100, 2, 300)
  await engine.addReplica(three!.address)
  await rebuilt(engine, three!.address)
  const sources = (address: string) => engine.rebuilds.find(one => one.address === address)!.sources
  t.same([...sources(three!.address)].sort(), [one!.address, two!.address].sort(), 'both')
  for (const snapshot of ['a', undefined]) t.same(await numbers(three!, snapshot), await numbers(one!, snapshot), `${snapshot}`)

  await two!.rpc.diskMarkAsRemoved({name: 'volume-snap-a.img'})
  await engine.addReplica(four!.address)
  await rebuilt(engine, four!.address)
  t.notOk(sources(four!.address).includes(one!.address) && sources(four!.address).includes(two!.address), 'not one that has removed a snapshot with one that has not')
  t.same(await numbers(four!), await numbers(one!))
})

t.test('writes of all kinds while it is being rebuilt', async t => {
  const folder = shortDir(t)
  const [one, two] = await runReplicas(t, folder, 2)
  const {engine} = await runEngine(t, engineOptions([one!]))
  await fill(engine, 0, 1, BLOCKS)
  await engine.takeSnapshot('a', {})
  await fill(engine, 10, 2, 100)
  let going = true
  const load = (async () => {
    for (let count = 0; going; count++) {
      const offset = ((count * 7919) % (SIZE_BYTES - 10_000)) + (count % 3)
      await write(engine.volume, offset - (offset % 512), Buffer.alloc(512 * (1 + (count % 9)), count))
    }
  })()
  try {
    await engine.addReplica(two!.address, 4 * 1024 * 1024)
    await engine.takeSnapshot('during', {})
    await rebuilt(engine, two!.address)
  } finally {
    going = false
    await load
  }
  for (const snapshot of ['a', 'during', undefined]) t.ok((await replicaImage(two!.directory, snapshot)).equals(await replicaImage(one!.directory, snapshot)), `${snapshot}`)
})

t.test('one that was away comes back with what it missed', async t => {
  const folder = shortDir(t)
  const [one, two] = await runReplicas(t, folder, 2)
  const server = await runEngine(t, engineOptions([one!, two!]))
  const {engine} = server
  await fill(engine, 0, 1, BLOCKS)
  await engine.takeSnapshot('a', {})
  await fill(engine, 0, 2, 300)
  await two!.server.close()
  await until(() => engine.replicas[1]!.mode === 'ERR', 'it is dropped')
  await fill(engine, 290, 3, 2)
  const again = await runReplica(t, two!.directory, undefined)
  await engine.addReplica(again.address)
  await rebuilt(engine, again.address)
  t.same(await numbers(again), await numbers(one!))
  const info = engine.rebuilds.find(({address}) => address === again.address)!
  t.ok(info.copied <= 2 * 1024 * 1024, `copied ${info.copied} of ${info.total}`)
  await server.close()
})

/** Numbers of what the engine reads. */
async function visible(engine: Engine): Promise<number[]> {
  const result: number[] = []
  for (let block = 0; block < BLOCKS; block++) result.push((await read(engine.volume, block * BLOCK, 4)).readUInt32LE())
  return result
}

t.test('after the engine was killed the replicas are made the same', async t => {
  const [one, two] = await runReplicas(t, shortDir(t), 2)
  const first = await runEngine(t, engineOptions([one!, two!]))
  await fill(first.engine, 0, 1, BLOCKS)
  await first.engine.takeSnapshot('a', {})
  await fill(first.engine, 0, 2, 200)
  // As if a write had reached only one of them.
  const second = await runEngine(t, engineOptions([one!, two!]))
  // The engine before may have gone on with one of them for a moment: then the other is to be rebuilt.
  await until(() => second.engine.rebuilds.length === 1, 'a rebuild has begun')
  await rebuilt(second.engine, second.engine.rebuilds[0]!.address)
  t.same(second.engine.replicas.map(({mode}) => mode), ['RW', 'RW'])
  t.same(await numbers(one!), await numbers(two!))
  t.same(await visible(second.engine), Array.from({length: BLOCKS}, (_, block) => (block < 200 ? 2 : 1)))
  t.not((await write(first.engine.volume, 0, Buffer.alloc(BLOCK, 9))).error, 0, 'the engine before is fenced')
  t.same(await visible(second.engine), Array.from({length: BLOCKS}, (_, block) => (block < 200 ? 2 : 1)))
  await first.close().catch(() => undefined)
  await second.close()
})

t.test('a stale replica is never chosen', async t => {
  const folder = shortDir(t)
  const [one, two] = await runReplicas(t, folder, 2)
  const first = await runEngine(t, engineOptions([one!, two!]))
  await fill(first.engine, 0, 1, 10)
  await two!.server.close()
  await until(() => first.engine.replicas[1]!.mode === 'ERR', 'it is dropped')
  await fill(first.engine, 0, 2, 10)
  await first.close()
  const again = await runReplica(t, two!.directory, undefined)
  const second = await runEngine(t, engineOptions([again, one!]))
  t.equal((await read(second.engine.volume, 0, 4)).readUInt32LE(), 2, 'what it lacks is there')
  await rebuilt(second.engine, again.address)
  t.same(second.engine.replicas.map(({mode}) => mode), ['RW', 'RW'], 'it is rebuilt by itself')
  t.same(await numbers(again), await numbers(one!))
  await second.close()
})

t.test('replicas that were used apart from each other', async t => {
  const [one, two] = await runReplicas(t, shortDir(t), 2)
  for (const replicas of [[one!, two!], [one!], [two!]]) {
    const {engine, close} = await runEngine(t, engineOptions(replicas))
    await fill(engine, 0, replicas.length)
    await close()
  }
  await t.rejects(runEngine(t, engineOptions([one!, two!])), {code: 'LH_CONFLICT', message: /used apart from each other/})
  const {engine, close} = await runEngine(t, engineOptions([one!, two!], {salvage: true}))
  t.ok(engine.replicas.some(({mode}) => mode === 'RW'))
  await close()
})

t.test('replicas that were only read apart from each other', async t => {
  const [one, two] = await runReplicas(t, shortDir(t), 2)
  for (const replicas of [[one!, two!], [one!], [two!], [one!, two!]]) {
    const {engine, close} = await runEngine(t, engineOptions(replicas))
    if (replicas.length === 2) await fill(engine, 0, 1)
    t.equal((await read(engine.volume, 0, 4)).readUInt32LE(), 1)
    t.same(engine.replicas.map(({mode}) => mode), replicas.map(() => 'RW'))
    await close()
  }
})

t.test('one that was being rebuilt, and alone has kept an expansion', async t => {
  const folder = shortDir(t)
  const [one, two] = await runReplicas(t, folder, 2)
  const first = await runEngine(t, engineOptions([one!]))
  await fill(first.engine, 0, 1, BLOCKS)
  await first.close()
  const before = join(folder, 'before')
  cpSync(one!.directory, before, {recursive: true})

  const second = await runEngine(t, engineOptions([one!]))
  await second.engine.addReplica(two!.address, 64 * 1024)
  await second.engine.expand(2 * SIZE_BYTES)
  await second.close()
  t.match(await two!.rpc.replicaGet(), {replica: {rebuilding: true, size: `${2 * SIZE_BYTES}`}})

  const smaller = await runReplica(t, before, undefined)
  const third = await runEngine(t, engineOptions([smaller]))
  await third.engine.addReplica(two!.address)
  await rebuilt(third.engine, two!.address)
  t.same(await numbers(two!), await numbers(smaller))
  await third.close()
})

t.test('a replica of another volume', async t => {
  const folder = shortDir(t)
  const [one, two, three] = await runReplicas(t, folder, 3)
  const other = await runEngine(t, engineOptions([two!]))
  await fill(other.engine, 0, 1)
  await other.close()
  const {engine, close} = await runEngine(t, engineOptions([one!]))
  await t.rejects(engine.addReplica(two!.address), {code: 'LH_CONFLICT', message: /belongs to another volume/})
  await engine.addReplica(three!.address)
  await rebuilt(engine, three!.address)
  await close()
  await t.rejects(runEngine(t, engineOptions([one!, two!])), {code: 'LH_CONFLICT', message: /different volumes/})
})

t.test('a volume that was reverted while a replica was away', async t => {
  // So large that a few samples are not all of it.
  const sizeBytes = 64 * SIZE_BYTES
  const [one, two] = await runReplicas(t, shortDir(t), 2, sizeBytes)
  const {engine} = await runEngine(t, engineOptions([one!, two!], {sizeBytes}))
  await fill(engine, 0, 1, 10)
  await engine.takeSnapshot('a', {})
  for (const block of [5, 3000, 9000, 30_000]) await fill(engine, block, 2)
  await submit(engine.volume, OP.FLUSH).answered
  engine.volume.fail(engine.volume.readers.find(({address}) => address === two!.address)!, new Error('a test'))
  await engine.revert('a')
  await engine.addReplica(two!.address)
  await rebuilt(engine, two!.address)
  t.same(await numbers(two!), await numbers(one!))
})
