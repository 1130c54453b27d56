import {randomBytes} from 'node:crypto'
import {utimesSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {listBackups, listVolumes, loadVolume} from '../../src/backup/catalog.js'
import {createBackup} from '../../src/backup/create.js'
import {backupKey, backupsFolder, blocksFolder, locksFolder} from '../../src/backup/format/store-layout.js'
import {removeBackups, removeVolume} from '../../src/backup/remove.js'
import type {BackupStore} from '../../src/backup/store/backup-store.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {FaultyStore, listed} from './faulty-store.js'
import {MemoryVolume} from './memory-volume.js'
import {copyUpstreamStore} from './upstream-store.js'

const settleMs = 10
const verify = {volume: 'ix-lz4', sample: 1, concurrency: 3}
const first = {volume: 'ix-lz4', backups: ['ix-lz4-s1'], settleMs}

async function blocks(store: BackupStore): Promise<number> {
  return (await listed(store, blocksFolder('ix-lz4'))).length
}

async function complete(t: Test, store: BackupStore, backups: number): Promise<void> {
  const verified = await verifyBackups(store, verify)
  t.match(verified, {backups, findings: []})
}

t.test("removing upstream's backups, one after the other", async t => {
  const store = copyUpstreamStore(t)
  t.match(await removeBackups(store, {...first, backups: ['ix-lz4-s3']}), {backups: ['ix-lz4-s3'], blocksKept: undefined})
  await complete(t, store, 2)
  t.match(await loadVolume(store, 'ix-lz4'), {lastBackupName: 'ix-lz4-s2', blockCount: await blocks(store)}, 'the newest one that is left is the base')
  await removeBackups(store, first)
  await complete(t, store, 1)
  await removeBackups(store, {...first, backups: ['ix-lz4-s2', 'never-was']})
  t.equal(await blocks(store), 0)
  t.match(await loadVolume(store, 'ix-lz4'), {lastBackupName: '', blockCount: 0})
})

t.test('few requests', async t => {
  const store = new FaultyStore(copyUpstreamStore(t))
  await removeBackups(store, first)
  t.ok(store.calls.list === 1 && store.calls.children <= 8, `${store.calls.list} flat listings, ${store.calls.children} others`)
})

t.test('a listing that fails removes no block', async t => {
  const real = copyUpstreamStore(t)
  for (const [call, folder] of [['children', backupsFolder('ix-lz4')], ['list', '']] as const) {
    let calls = 0
    for (const failFrom of [1, 2, 3, 4]) {
      calls = 0
      const store = new FaultyStore(real, (made, key) => {
        if (made === call && key.startsWith(folder) && ++calls >= failFrom) throw new Error('403')
      })
      await removeBackups(store, {...first, backups: ['never-was']}).catch(() => undefined)
      await complete(t, real, 3)
    }
  }
})

t.test('a record that cannot be read keeps all blocks', async t => {
  const store = copyUpstreamStore(t)
  const before = await blocks(store)
  await store.put(backupKey('ix-lz4', 'broken'), Buffer.from('{"Name":'))
  t.match(await removeBackups(store, first), {backups: ['ix-lz4-s1'], blocks: 0, blocksKept: /broken/})
  t.equal(await blocks(store), before)
  const failing = new FaultyStore(store, (call, key) => {
    if (call === 'get' && key.endsWith('ix-lz4-s2.cfg')) throw new Error('503')
  })
  await t.rejects(removeBackups(failing, first), /503/)
  t.equal(await blocks(store), before)
})

t.test('an unfinished backup keeps all blocks, until it is certainly dead', async t => {
  const store = copyUpstreamStore(t)
  const before = await blocks(store)
  const key = backupKey('ix-lz4', 'running')
  await store.put(key, Buffer.from('{"Name":"running","CreatedTime":""}'))
  t.match(await removeBackups(store, first), {dead: [], blocks: 0, blocksKept: /running/})
  t.equal(await blocks(store), before)
  const old = Date.now() / 1000 - 7200
  utimesSync(join((store).root, key), old, old)
  t.match(await removeBackups(store, first), {dead: ['running'], blocksKept: undefined})
  await complete(t, store, 2)
})

t.test('what crashes have left goes after a day', async t => {
  const store = copyUpstreamStore(t)
  const old = Date.now() / 1000 - 90_000
  const keys = [`${blocksFolder('ix-lz4')}aa/bb/${'a'.repeat(64)}.blk.tmp.123`, `${locksFolder('ix-lz4')}lock-dead.lck`]
  for (const key of keys) {
    await store.put(key, Buffer.from('{"Name":"lock-dead","Type":1,"Acquired":true}'))
    utimesSync(join(store.root, key), old, old)
  }
  await store.put(`${keys[0]!}4`, Buffer.from('young'))
  t.match(await removeBackups(store, {...first, backups: []}), {blocks: 0, blocksKept: undefined})
  for (const key of keys) t.equal(await store.head(key), undefined)
  t.ok(await store.head(`${keys[0]!}4`))
  await complete(t, store, 3)
})

t.test('a backup that another cluster begins meanwhile is noticed', async t => {
  const real = copyUpstreamStore(t)
  const before = await blocks(real)
  // What a writer does that does not see our lock.
  const store = new FaultyStore(real, async call => {
    if (call === 'list') await real.put(backupKey('ix-lz4', 'sneaky'), Buffer.from('{"Name":"sneaky","CreatedTime":""}'))
  })
  t.match(await removeBackups(store, first), {blocks: 0, blocksKept: /changed meanwhile/})
  t.equal(await blocks(real), before)
})

t.test('two clusters remove and back up on one store', async t => {
  const store = copyUpstreamStore(t)
  const volume = new MemoryVolume(8 * 2 ** 20)
  for (let round = 0; round < 6; round++) {
    volume.write(round * 4096, randomBytes(4096))
    const snapshot = `r${round}`
    const source = volume.snapshot(snapshot)
    await Promise.allSettled([
      createBackup(source, store, {volume: 'ix-lz4', backup: `round-${round}`, snapshot, concurrency: 2, settleMs: 30}),
      removeBackups(store, {volume: 'ix-lz4', backups: [`round-${round - 1}`], settleMs: 30}),
      removeBackups(store, {volume: 'ix-lz4', backups: [`round-${round - 2}`], settleMs: 30}),
    ])
    t.same((await verifyBackups(store, verify)).findings, [])
  }
})

t.test('a volume goes as a whole', async t => {
  const store = copyUpstreamStore(t)
  await removeVolume(store, 'ix-lz4', {settleMs})
  t.notOk((await listVolumes(store)).includes('ix-lz4'))
  t.equal((await listVolumes(store)).length, 6)
  t.same(await listBackups(store, 'ix-lz4'), [])
  await removeVolume(store, 'never-was', {settleMs})
})

t.test('a stray name does not break the listing', async t => {
  const store = copyUpstreamStore(t)
  await store.put('backupstore/volumes/65/40/lost+found/x', Buffer.from('x'))
  await store.put('backupstore/volumes/lost+found/x', Buffer.from('x'))
  t.equal((await listVolumes(store)).length, 7)
})
