import {randomBytes} from 'node:crypto'
import {readdirSync, rmSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import type {Engine} from '../../src/engine/engine.js'
import type {VolumeRestoreStatus} from '../../src/engine/volume-restore.js'
import {loadBackup} from '../../src/backup/catalog.js'
import {createBackup} from '../../src/backup/create.js'
import {blockKey} from '../../src/backup/format/store-layout.js'
import {openStore} from '../../src/backup/store/open-store.js'
import {parseTargetUrl} from '../../src/backup/target-url.js'
import {connect} from '../../src/protocol/grpc/client.js'
import {SyncAgentServiceDefinition} from '../../src/protocol/proto/generated/sync-agent.js'
import {removeBackups} from '../../src/backup/remove.js'
import {MemoryVolume} from '../backup/memory-volume.js'
import {Gate} from '../support/gate.js'
import {replicaImage} from '../support/replica-image.js'
import {read, write} from '../support/request.js'
import {S3Server} from '../support/s3-server.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {BackedUp} from './support/backed-up.js'
import {engineOptions, runEngine, runReplica, runReplicas, type RunningReplica} from './support/running.js'

const MIB = 1024 ** 2
const SIZE = 16 * MIB
const GENEROUS_MS = 60_000

async function restored(engine: Engine, backup: string, replace = false): Promise<VolumeRestoreStatus> {
  await engine.restore.start({backup, credential: new Map(), concurrency: 1}, replace)
  return over(engine)
}

async function over(engine: Engine): Promise<VolumeRestoreStatus> {
  await until(() => !engine.restore.running, 'the restore is over', GENEROUS_MS)
  return engine.restore.status()
}

async function purged({rpc}: RunningReplica): Promise<void> {
  await until(async () => [...(await rpc.replicaGet()).replica!.disks.keys()].length === 2, 'only the restored layer is left', GENEROUS_MS)
}

async function checkImages(t: Test, replicas: readonly RunningReplica[], image: Buffer): Promise<void> {
  for (const {directory} of replicas) t.ok((await replicaImage(directory)).equals(image), `${directory} is the backup`)
}

async function volumes(t: Test, count: number, sizeBytes = SIZE) {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  const replicas = await runReplicas(t, folder, count, sizeBytes)
  const server = await runEngine(t, engineOptions(replicas, {sizeBytes, frontendListen: {kind: 'unix', path: join(folder, 'vol.sock')}}))
  return {folder, source, replicas, engine: server.engine, server}
}

t.test('a standby that follows', async t => {
  const {source, replicas, engine} = await volumes(t, 3)
  const {volume} = source
  volume.write(0, randomBytes(3 * MIB))
  volume.write(9 * MIB + 4096, randomBytes(5000))
  const first = await source.backup('first')
  const status = await restored(engine, first)
  t.match(status, {state: 'complete', incremental: false, usable: true, lastRestored: first, error: ''})
  t.same(status.replicas.map(({state, totalBlocks}) => [state, totalBlocks]), [['complete', 3], ['complete', 3], ['complete', 3]])
  await checkImages(t, replicas, source.image('first'))
  t.ok((await read(engine.volume, MIB, 65_536)).equals(source.image('first').subarray(MIB, MIB + 65_536)))
  const [layer] = readdirSync(replicas[0]!.directory).filter(name => name.startsWith('volume-snap-') && name.endsWith('.img'))
  t.ok(statSync(join(replicas[0]!.directory, layer!)).blocks * 512 < 4 * MIB, 'sparse')

  volume.write(MIB, randomBytes(10_000))
  volume.write(2 * MIB, Buffer.alloc(MIB))
  volume.write(14 * MIB, randomBytes(4096))
  const second = await source.backup('second')
  t.match(await restored(engine, second), {state: 'complete', incremental: true, lastRestored: second, replicas: [{totalBlocks: 3}, {totalBlocks: 3}, {totalBlocks: 3}]})
  await checkImages(t, replicas, source.image('second'))
  // At once, while the purge of the last one may run.
  volume.write(0, randomBytes(512))
  const third = await source.backup('third')
  t.match(await restored(engine, third), {state: 'complete', incremental: true, replicas: [{totalBlocks: 1}, {totalBlocks: 1}, {totalBlocks: 1}]})
  await checkImages(t, replicas, source.image('third'))
  await Promise.all(replicas.map(purged))
  await checkImages(t, replicas, source.image('third'))
  t.match(await restored(engine, third), {state: 'complete', lastRestored: third}, 'the same again')

  await engine.startFrontend('socket')
  await t.rejects(restored(engine, third), {code: 'LH_CONFLICT', message: /frontend socket is up; shut it down/})
  await write(engine.volume, 5 * MIB, randomBytes(4096))
  await engine.stopFrontend()
  volume.write(6 * MIB, randomBytes(100))
  const fourth = await source.backup('fourth')
  t.match(await restored(engine, fourth), {state: 'complete', incremental: false}, 'it was written to: all of it')
  await checkImages(t, replicas, source.image('fourth'))

  volume.write(0, randomBytes(8192))
  const fifth = await source.backup('fifth')
  await removeBackups(source.store, {volume: source.name, backups: ['fourth'], settleMs: 10})
  t.match(await restored(engine, fifth), {state: 'complete', incremental: false}, 'the base is gone from the store')
  await checkImages(t, replicas, source.image('fifth'))
  t.match(await restored(engine, first), {state: 'complete', incremental: true, lastRestored: first}, 'back to an older one')
  await checkImages(t, replicas, source.image('first'))
})

t.test('what a backup has not becomes zeros', async t => {
  const {source, replicas, engine, folder} = await volumes(t, 2)
  source.volume.write(0, randomBytes(8 * MIB))
  const large = await source.backup('large')
  const other = new BackedUp(join(folder, 'store'), SIZE, source.name)
  other.volume.write(2 * MIB + 8192, randomBytes(4096))
  const small = await other.backup('small', true)
  t.match(await restored(engine, large), {state: 'complete'})
  t.match(await restored(engine, small), {state: 'complete', incremental: true, replicas: [{totalBlocks: 1}, {totalBlocks: 1}]})
  await checkImages(t, replicas, other.image('small'))
  await Promise.all(replicas.map(purged))
  await checkImages(t, replicas, other.image('small'))
})

t.test('refusals', async t => {
  const {source, engine} = await volumes(t, 2)
  source.volume.write(0, randomBytes(100))
  const url = await source.backup('one')
  for (const [backup, code, message] of [
    [source.url('none'), 'LH_NOT_FOUND', /cannot find/],
    ['vfs:///x', 'LH_USAGE', /which backup/],
    ['nonsense', 'LH_USAGE', /not a URL/],
    ['gopher://x/y?backup=bb&volume=vv', 'LH_UNSUPPORTED', /not supported/],
  ] as const) {
    await t.rejects(restored(engine, backup), {code, message}, backup)
  }
  t.match(await engine.restore.status(), {usable: true}, 'nothing has changed')
  await engine.startFrontend('socket')
  await engine.stopFrontend()
  await write(engine.volume, 0, Buffer.alloc(4096, 1))
  await t.rejects(restored(engine, url), {code: 'LH_CONFLICT', message: /has data.*--replace/})
  t.match(await restored(engine, url, true), {state: 'complete'})
  const small = await volumes(t, 1, 8 * MIB)
  await t.rejects(restored(small.engine, url), {code: 'LH_CONFLICT', message: /need to expand the volume to size 16777216/})
  const large = await volumes(t, 1, 32 * MIB)
  t.match(await restored(large.engine, url), {state: 'complete'}, 'larger than the backup')
  t.ok((await replicaImage(large.replicas[0]!.directory)).equals(Buffer.concat([source.image('one'), Buffer.alloc(16 * MIB)])))
})

t.test('one that fails', async t => {
  const {source, replicas, engine, server, folder} = await volumes(t, 2)
  source.volume.write(0, randomBytes(8 * MIB))
  const url = await source.backup('damaged')
  const root = join(folder, 'store')
  const {blocks} = await loadBackup(source.store, source.name, 'damaged')
  const damaged = join(root, blockKey(source.name, blocks.at(-1)!.sum))
  writeFileSync(damaged, 'nothing of the kind')
  t.match(await restored(engine, url), {state: 'error', usable: false, error: /replica .*: .*blk/})
  t.same(engine.replicas.map(({mode}) => mode), ['RW', 'RW'], 'nobody is dropped')
  await t.rejects(engine.startFrontend('socket'), {code: 'LH_CONFLICT', message: /was not finished, so the volume is not complete/})
  await server.close()
  const next = await runEngine(t, engineOptions(replicas, {sizeBytes: SIZE, frontendListen: {kind: 'unix', path: join(folder, 'vol.sock')}}))
  t.match(await next.engine.restore.status(), {state: 'error', backup: url, usable: false}, 'another engine knows')
  await t.rejects(next.engine.startFrontend('socket'), {code: 'LH_CONFLICT'})
  rmSync(damaged)
  await source.backup('repaired', true)
  const again = await restored(next.engine, url)
  t.match(again, {state: 'complete', usable: true})
  t.ok(again.replicas.every(({objectBytes}) => objectBytes < 7 * MIB), 'what was here is not fetched again')
  await checkImages(t, replicas, source.image('damaged'))
  await next.engine.startFrontend('socket')
})

t.test('one that is given up', async t => {
  const {source, replicas, engine, folder} = await volumes(t, 1)
  source.volume.write(0, randomBytes(MIB))
  const good = await source.backup('good')
  t.match(await restored(engine, good), {state: 'complete'})
  source.volume.write(4 * MIB, randomBytes(MIB))
  const bad = await source.backup('bad')
  const newest = readdirSync(join(folder, 'store'), {recursive: true, encoding: 'utf8'}).filter(name => name.endsWith('.blk'))
  for (const name of newest) writeFileSync(join(folder, 'store', name), '')
  t.match(await restored(engine, bad), {state: 'error', usable: true, lastRestored: good}, 'it still holds the one before')
  await checkImages(t, replicas, source.image('good'))
  await engine.restore.cancel()
  t.match(await engine.restore.status(), {state: '', lastRestored: good, usable: true})
  t.notOk(readdirSync(replicas[0]!.directory).some(name => name.includes('delta')), 'nothing is left of it')
  await engine.startFrontend('socket')
})

t.test('a replica that ends in the middle', async t => {
  const {source, replicas, engine, server} = await volumes(t, 2)
  source.volume.write(0, randomBytes(12 * MIB))
  const url = await source.backup('one')
  await engine.restore.start({backup: url, credential: new Map(), concurrency: 1}, false)
  await replicas[1]!.server.close()
  t.match(await over(engine), {state: 'complete', usable: true})
  await until(() => engine.replicas[1]!.mode === 'ERR', 'it is dropped', GENEROUS_MS)
  t.equal(engine.replicas[0]!.mode, 'RW')
  const again = await runReplica(t, replicas[1]!.directory, undefined)
  t.match((await again.rpc.replicaGet()).replica, {restored: {begun: url}}, 'it knows that it is not complete')
  await engine.addReplica(again.address)
  await until(() => engine.replicas.at(-1)!.mode === 'RW', 'it is rebuilt', GENEROUS_MS)
  await checkImages(t, [replicas[0]!, again], source.image('one'))
  source.volume.write(MIB, randomBytes(4096))
  const two = await source.backup('two')
  t.match(await restored(engine, two), {state: 'complete', incremental: true, usable: true}, 'and follows again')
  await checkImages(t, [replicas[0]!, again], source.image('two'))
  await server.close()
})

t.test('a rebuild that is asked for while a restore runs, and the other way round', async t => {
  const {folder, replicas, engine, server} = await volumes(t, 2)
  const s3 = await new S3Server().start(t)
  const credential = new Map(Object.entries(s3.env))
  const store = await openStore(parseTargetUrl('s3://backups@eu-test-1/path/'), {env: s3.env})
  t.teardown(() => store.close())
  const source = new MemoryVolume(SIZE)
  source.write(0, randomBytes(12 * MIB))
  const {url} = await createBackup(source.snapshot('s1'), store, {volume: 'source', snapshot: 's1', backup: 'one', concurrency: 2, settleMs: 10})
  const extra = await runReplica(t, join(folder, 'extra'), SIZE)

  const gate = new Gate()
  s3.gate = (method, key) => (method === 'GET' && key.endsWith('.blk') ? gate.pass() : Promise.resolve())
  // At the same time: the replica is asked for before the restore has its turn, and comes after it.
  const begun = engine.restore.start({backup: url, credential, concurrency: 2}, false)
  await t.rejects(engine.addReplica(extra.address), {code: 'LH_BUSY', message: /cannot be given another replica: the restore of .* already in progress/})
  await begun
  await until(() => gate.waiting > 0, 'blocks are being fetched', GENEROUS_MS)
  await t.rejects(engine.addReplica(extra.address), {code: 'LH_BUSY', message: /given another replica/})
  gate.open()
  t.match(await over(engine), {state: 'complete', usable: true})
  await checkImages(t, replicas, source.image)
  t.same(engine.replicas.filter(({mode}) => mode === 'RW').map(({address}) => address), replicas.map(({address}) => address))

  source.write(MIB, randomBytes(MIB))
  const second = await createBackup(source.snapshot('s2'), store, {volume: 'source', snapshot: 's2', backup: 'two', concurrency: 2, settleMs: 10})
  // Slow enough to be asked in the middle of it.
  await engine.addReplica(extra.address, MIB)
  await t.rejects(restored(engine, second.url), {code: 'LH_CONFLICT', message: /is being rebuilt; restore when it is done/})
  await until(() => engine.replicas.find(({address}) => address === extra.address)?.mode === 'RW', 'it is rebuilt', GENEROUS_MS)
  await engine.restore.start({backup: second.url, credential, concurrency: 2}, false)
  t.match(await over(engine), {state: 'complete', usable: true})
  await checkImages(t, [...replicas, extra], source.image)
  await server.close()
})

t.test('a replica that was out comes back with all of it', async t => {
  const {source, replicas, engine} = await volumes(t, 2)
  await write(engine.volume, 0, randomBytes(MIB))
  await write(engine.volume, 10 * MIB, randomBytes(MIB))
  engine.volume.fail(engine.volume.readers.find(({address}) => address === replicas[1]!.address)!, new Error('a test'))
  source.volume.write(3 * MIB, randomBytes(MIB))
  t.match(await restored(engine, await source.backup('one'), true), {state: 'complete'})
  await engine.addReplica(replicas[1]!.address)
  await until(() => engine.replicas[1]!.mode === 'RW', 'it is rebuilt', GENEROUS_MS)
  await checkImages(t, replicas, source.image('one'))
})

t.test('an engine that takes over asks again', async t => {
  const {source, replicas, engine} = await volumes(t, 2)
  source.volume.write(0, randomBytes(4 * MIB))
  const url = await source.backup('one')
  await engine.restore.start({backup: url, credential: new Map(), concurrency: 1}, false)
  // As if it had been killed: the replicas go on, and nobody finishes.
  const next = await runEngine(t, engineOptions(replicas, {sizeBytes: SIZE}))
  t.match(await next.engine.restore.status(), {usable: false})
  await until(() => next.engine.replicas.every(({mode}) => mode === 'RW'), 'both are in use', GENEROUS_MS)
  t.match(await restored(next.engine, url), {state: 'complete', usable: true})
  await checkImages(t, replicas, source.image('one'))
  t.match(await over(engine), {state: 'error'}, 'the one before has nothing to say')
})

t.test('a backup that came to one of two replicas only', async t => {
  const {source, replicas, engine, folder} = await volumes(t, 2)
  source.volume.write(0, randomBytes(4 * MIB))
  const url = await source.backup('one')
  const {address} = replicas[0]!.server
  const agent = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...address, port: address.port + 2}})
  t.teardown(() => agent.destroy())
  // As a client of upstream asks for it, or as an engine leaves it that is killed between the two.
  await agent.backupRestore({backup: url, snapshotDiskName: 'volume-snap-s.img', credential: new Map(), concurrentLimit: 1, hold: false, baseBackup: '', baseLayer: ''})
  await until(async () => !(await agent.restoreStatus()).isRestoring, 'it is over', GENEROUS_MS)
  t.match(await engine.restore.status(), {usable: false, lastRestored: url})
  await t.rejects(engine.startFrontend('socket'), {code: 'LH_CONFLICT', message: /holds backup .* does not/})
  const next = await runEngine(t, engineOptions(replicas, {sizeBytes: SIZE, frontendListen: {kind: 'unix', path: join(folder, 'vol.sock')}}))
  await until(() => next.engine.replicas.every(({mode}) => mode === 'RW'), 'they are made the same', GENEROUS_MS)
  const [one, two] = await Promise.all(replicas.map(({directory}) => replicaImage(directory)))
  t.ok(one!.equals(two!), 'one of them is the truth')
  await next.engine.startFrontend('socket')
  await next.engine.stopFrontend()
  t.match(await restored(next.engine, url, true), {state: 'complete', usable: true})
  await checkImages(t, replicas, source.image('one'))
})
