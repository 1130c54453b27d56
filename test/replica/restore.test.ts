import {randomBytes} from 'node:crypto'
import {existsSync, readdirSync, readFileSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {loadBackup} from '../../src/backup/catalog.js'
import {BackupKey, BackupKeys} from '../../src/backup/encryption/backup-keys.js'
import {blockKey} from '../../src/backup/format/store-layout.js'
import {LOCK, StoreLock} from '../../src/backup/store-lock.js'
import {connect, type RpcClient} from '../../src/protocol/grpc/client.js'
import {ALL_FEATURES} from '../../src/protocol/frame.js'
import {SyncAgentServiceDefinition, type BackupRestoreRequest, type RestoreStatusResponse} from '../../src/protocol/proto/generated/sync-agent.js'
import {BackedUp} from '../engine/support/backed-up.js'
import {runReplica, type RunningReplica} from '../engine/support/running.js'
import {mountSmall} from './support/small-file-system.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'

const MIB = 1024 ** 2
const SIZE = 12 * MIB
const SESSION = 'a-session'
const GENEROUS_MS = 60_000

type Agent = RpcClient<typeof SyncAgentServiceDefinition>

function agentOf(t: Test, {server}: RunningReplica): Agent {
  const agent = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...server.address, port: server.address.port + 2}})
  t.teardown(() => agent.destroy())
  return agent
}

function request(backup: string, more: Partial<BackupRestoreRequest> = {}): BackupRestoreRequest {
  return {backup, snapshotDiskName: 'volume-snap-s.img', credential: new Map(), concurrentLimit: 1, hold: false, baseBackup: '', baseLayer: '', ...more}
}

async function over(agent: Agent): Promise<RestoreStatusResponse> {
  let status: RestoreStatusResponse | undefined
  await until(async () => !(status = await agent.restoreStatus()).isRestoring, 'the restore is over', GENEROUS_MS)
  return status!
}

async function opened(t: Test, folder: string, session = ''): Promise<{replica: RunningReplica; agent: Agent}> {
  const replica = await runReplica(t, join(folder, 'replica'), SIZE)
  await replica.rpc.replicaOpen(session === '' ? {} : {session, features: [...ALL_FEATURES]})
  return {replica, agent: agentOf(t, replica)}
}

async function layers({rpc}: RunningReplica): Promise<string[]> {
  return [...(await rpc.replicaGet()).replica!.disks.keys()].filter(name => !name.includes('head')).sort()
}

t.test("as upstream's client asks for it", async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(0, randomBytes(3 * MIB))
  const first = await source.backup('first')
  const {replica, agent} = await opened(t, folder)
  t.match(await agent.restoreStatus(), {isRestoring: false, state: '', lastRestored: '', destFileName: ''})
  await agent.backupRestore(request(first))
  await t.rejects(agent.backupRestore(request(first)), {message: /already in progress|already restored backup first/})
  const done = await over(agent)
  t.match(done, {state: 'complete', progress: 100, error: '', lastRestored: 'first', destFileName: 'volume-snap-s.img', backupUrl: first, currentRestoringBackup: '', incremental: false})
  t.ok((await replicaImage(replica.directory)).equals(source.image('first')))
  t.same(await layers(replica), ['volume-snap-s.img'])
  t.match((await replica.rpc.replicaGet()).replica, {parent: 'volume-snap-s.img', head: 'volume-head-001.img', restored: {begun: '', backup: first, layer: 'volume-snap-s.img'}})
  await t.rejects(agent.backupRestore(request(first)), {message: /already restored backup first/})

  source.volume.write(MIB, randomBytes(4096))
  source.volume.write(7 * MIB, randomBytes(4096))
  const second = await source.backup('second')
  // The name of the layer that there is.
  await agent.backupRestore(request(second))
  t.match(await over(agent), {state: 'complete', lastRestored: 'second', incremental: true, totalBlocks: 2n})
  t.ok((await replicaImage(replica.directory)).equals(source.image('second')))
  t.same(await layers(replica), ['volume-snap-s.img'], 'it has the name of the one before')
  t.ok((await replicaImage(replica.directory)).equals(source.image('second')), 'the same after the purge')
  const [layer] = await layers(replica)
  t.ok(statSync(join(replica.directory, layer!)).blocks * 512 < 5 * MIB, 'sparse')

  await replica.server.close()
  const again = await runReplica(t, replica.directory, undefined)
  await again.rpc.replicaOpen({})
  const next = agentOf(t, again)
  t.match(await next.restoreStatus(), {lastRestored: 'second', state: '', isRestoring: false}, 'it is remembered')
  source.volume.write(7 * MIB, Buffer.alloc(4096))
  const third = await source.backup('third')
  await next.backupRestore(request(third))
  t.match(await over(next), {state: 'complete', lastRestored: 'third', incremental: true, totalBlocks: 1n})
  t.ok((await replicaImage(replica.directory)).equals(source.image('third')))

  // Somebody keeps what it was: then the name is his.
  await again.rpc.replicaSnapshot({name: 'kept', userCreated: true, created: '2026-01-02T03:04:05Z'})
  const fourth = await source.backup('fourth')
  await next.backupRestore(request(fourth, {snapshotDiskName: 'volume-snap-kept.img'}))
  t.match(await over(next), {state: 'complete', lastRestored: 'fourth', incremental: true})
  t.ok((await replicaImage(replica.directory)).equals(source.image('fourth')))
  t.ok((await replicaImage(replica.directory, 'kept')).equals(source.image('third')))
  t.equal((await layers(again)).length, 2)
})

t.test('of many that are asked for at once one begins', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(0, randomBytes(MIB))
  const url = await source.backup('one')
  const {replica, agent} = await opened(t, folder)
  const results = await Promise.allSettled(Array.from({length: 5}, () => agent.backupRestore(request(url))))
  t.equal(results.filter(({status}) => status === 'fulfilled').length, 1)
  for (const result of results) if (result.status === 'rejected') t.match(result.reason, {code: 'LH_BUSY', message: /already in progress/})
  t.match(await over(agent), {state: 'complete', lastRestored: 'one'})
  t.ok((await replicaImage(replica.directory)).equals(source.image('one')))
  await t.rejects(agent.backupRestore(request(url)), {code: 'LH_CONFLICT', message: /already restored backup one/})
  t.match(await agent.restoreStatus(), {state: 'complete', lastRestored: 'one', error: ''}, 'a refusal is not what came of it')
  await replica.server.close()
})

t.test('in two steps, led by an engine', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(5 * MIB, randomBytes(MIB))
  const url = await source.backup('one')
  const {replica, agent} = await opened(t, folder, SESSION)
  const held = request(url, {hold: true})
  const ready = () => until(async () => (await agent.restoreStatus()).ready, 'all of it is here', GENEROUS_MS)
  await agent.backupRestore(held)
  await ready()
  t.same(await layers(replica), [], 'nothing has changed yet')
  t.match((await replica.rpc.replicaGet()).replica, {restored: {begun: url, running: true, backup: ''}})
  await t.rejects(agent.snapshotPurge(), {code: 'LH_BUSY'})
  // Its lock is given back: a deletion need not wait for the engine.
  await using _lock = await StoreLock.take(source.store, source.name, LOCK.DELETE, {settleMs: 10})
  await _lock.close()
  await t.rejects(agent.backupRestoreFinish({session: 'another', layer: held.snapshotDiskName}), {code: 'LH_CONFLICT', message: /another engine/})
  await t.rejects(agent.backupRestoreFinish({session: SESSION, layer: 'volume-snap-x.img'}), {code: 'LH_CONFLICT', message: /no restore/})
  await agent.backupRestore(held)
  await ready()
  t.match(await agent.restoreStatus(), {objectBytes: 0n}, 'what is here is not fetched again')
  await agent.backupRestoreFinish({session: SESSION, layer: held.snapshotDiskName})
  t.match(await agent.restoreStatus(), {state: 'complete', lastRestored: 'one', isRestoring: false})
  t.ok((await replicaImage(replica.directory)).equals(source.image('one')))
  await t.rejects(agent.backupRestoreFinish({session: SESSION, layer: held.snapshotDiskName}), {code: 'LH_CONFLICT'})
  await t.rejects(agent.backupRestore(request(url, {hold: true, snapshotDiskName: 'volume-snap-t.img', baseBackup: url, baseLayer: 'volume-snap-none.img'})), {code: 'LH_CONFLICT', message: /does not hold backup one/})
  t.match((await replica.rpc.replicaGet()).replica, {restored: {begun: '', running: false}}, 'what is refused leaves nothing')
})

t.test('ended and given up', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(0, randomBytes(SIZE))
  const url = await source.backup('one')
  const {replica, agent} = await opened(t, folder)
  await agent.backupRestore(request(url))
  await agent.backupRestoreCancel()
  t.match(await agent.restoreStatus(), {isRestoring: false, state: ''})
  t.notOk(existsSync(join(replica.directory, 'volume-delta-restore.img')))
  t.same(await layers(replica), [])
  t.match((await replica.rpc.replicaGet()).replica, {restored: undefined})

  const {blocks} = await loadBackup(source.store, source.name, 'one')
  writeFileSync(join(source.root, blockKey(source.name, blocks.at(-1)!.sum)), 'damaged')
  await agent.backupRestore(request(url))
  t.match(await over(agent), {state: 'error', error: /blk/, lastRestored: ''})
  await replica.server.close()
  const again = await runReplica(t, replica.directory, undefined)
  const next = agentOf(t, again)
  t.match(await next.restoreStatus(), {state: 'error', error: /the restore of one was interrupted/, backupUrl: url})
  t.match((await again.rpc.replicaGet()).replica, {restored: {begun: url, backup: ''}})
  await t.rejects(next.backupRestore(request(url)), {code: 'LH_CONFLICT', message: /not open/})
  await again.rpc.replicaOpen({})
  await source.backup('repaired', true)
  await next.backupRestore(request(url))
  const done = await over(next)
  t.match(done, {state: 'complete', lastRestored: 'one'})
  t.ok(done.objectBytes < BigInt(6 * MIB), 'what the first attempt fetched is used')
  t.ok((await replicaImage(again.directory)).equals(source.image('one')))
})

t.test('encrypted, and ending within a block: what an earlier attempt fetched is used', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), 11 * MIB)
  const key = randomBytes(32)
  source.store.keys = BackupKeys.of([BackupKey.from(key)])
  source.volume.write(0, randomBytes(11 * MIB))
  const url = await source.backup('one')
  const {replica, agent} = await opened(t, folder, SESSION)
  await t.rejects(agent.backupRestore(request(url, {hold: true})), {code: 'LH_USAGE', message: /no key was given/})
  const held = request(url, {hold: true, credential: new Map([['LONGHORN_BACKUP_KEY', key.toString('base64')]])})
  for (const attempt of [1, 2]) {
    await agent.backupRestore(held)
    await until(async () => (await agent.restoreStatus()).ready, 'all of it is here', GENEROUS_MS)
    const {objectBytes} = await agent.restoreStatus()
    t.ok(attempt === 1 ? objectBytes > 11n * BigInt(MIB) : objectBytes === 0n, `attempt ${attempt}: ${objectBytes}`)
  }
  await agent.backupRestoreFinish({session: SESSION, layer: held.snapshotDiskName})
  t.ok((await replicaImage(replica.directory)).subarray(0, 11 * MIB).equals(source.image('one')))
})

t.test('a full disk', async t => {
  const small = mountSmall(t, 'tmpfs', 8)
  if (small === undefined) return
  const source = new BackedUp(join(shortDir(t), 'store'), SIZE)
  source.volume.write(0, randomBytes(MIB))
  const small1 = await source.backup('small')
  source.volume.write(0, randomBytes(SIZE))
  const large = await source.backup('large')
  const {replica, agent} = await opened(t, small)
  await agent.backupRestore(request(small1))
  t.match(await over(agent), {state: 'complete', lastRestored: 'small'})
  await agent.backupRestore(request(large, {snapshotDiskName: 'volume-snap-t.img'}))
  t.match(await over(agent), {state: 'error', error: /no space left on device/, lastRestored: 'small'})
  t.notOk(existsSync(join(replica.directory, 'volume-delta-restore.img')), 'the space is given back')
  t.ok((await replicaImage(replica.directory)).equals(source.image('small')))
  t.match((await replica.rpc.replicaGet()).replica, {restored: {begun: large, running: false, backup: small1}})
  await replica.server.close()
})

t.test('a process that ends between the commit and its record', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(0, randomBytes(100))
  const url = await source.backup('one')
  const {replica, agent} = await opened(t, folder)
  await agent.backupRestore(request(url))
  await over(agent)
  await replica.server.close()
  const file = join(replica.directory, 'restore')
  const {Restored} = JSON.parse(readFileSync(file, 'utf8')) as {Restored: object}
  writeFileSync(file, JSON.stringify({Begun: Restored, Restored: null}))
  const again = await runReplica(t, replica.directory, undefined)
  t.match((await again.rpc.replicaGet()).replica, {restored: {begun: '', backup: url}}, 'it is complete')
  await again.server.close()
  writeFileSync(file, '{"Begun": 7}')
  await t.rejects(runReplica(t, replica.directory, undefined), {code: 'LH_CORRUPT', message: /cannot be read: remove it/})
})

t.test('garbage', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(0, randomBytes(100))
  const url = await source.backup('one')
  const {replica, agent} = await opened(t, folder)
  const before = readdirSync(replica.directory).sort()
  const cases: [string, Partial<BackupRestoreRequest>, string][] = [
    ['no backup', {backup: ''}, 'LH_USAGE'],
    ['no name of a backup', {backup: source.store.url}, 'LH_USAGE'],
    ['no layer', {snapshotDiskName: ''}, 'LH_USAGE'],
    ['a head', {snapshotDiskName: 'volume-head-007.img'}, 'LH_USAGE'],
    ['a path', {snapshotDiskName: '../../volume-snap-x.img'}, 'LH_USAGE'],
    ['a long name', {snapshotDiskName: 'x'.repeat(500)}, 'LH_USAGE'],
    ['too many workers', {concurrentLimit: 1000}, 'LH_USAGE'],
    ['less than none', {concurrentLimit: -1}, 'LH_USAGE'],
    ['half a base', {hold: true, baseBackup: url}, 'LH_USAGE'],
    ['a backup that is not there', {backup: source.url('nope')}, 'LH_NOT_FOUND'],
    ['a path as a name', {backup: `${source.store.url}?backup=..%2F..%2Fx&volume=source`}, 'LH_USAGE'],
    ['another scheme', {backup: 'file:///x?backup=aa&volume=bb'}, 'LH_UNSUPPORTED'],
  ]
  for (const [what, more, code] of cases) await t.rejects(agent.backupRestore(request(url, more)), {code}, what)
  await t.rejects(agent.backupRestoreFinish({session: '', layer: 'x'}), {code: 'LH_USAGE'})
  t.same(readdirSync(replica.directory).sort(), before, 'nothing is left of it')
  const root = join(source.root, 'backupstore')
  const record = readdirSync(root, {recursive: true, encoding: 'utf8'}).find(name => name.endsWith('backup_one.cfg'))!
  for (const text of ['', '{', '{"Name":"one","Blocks":[{"Offset":1e300}]}', '{"Name":"one","VolumeName":"source","CreatedTime":"x","Blocks":[{"Offset":0,"BlockChecksum":"../../etc"}]}']) {
    writeFileSync(join(root, record), text)
    await t.rejects(agent.backupRestore(request(url)), /backup_one\.cfg|in progress/, JSON.stringify(text))
  }
  t.same(readdirSync(replica.directory).sort(), before)
})
