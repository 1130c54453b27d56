import {chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {openStore} from '../../../src/backup/store/open-store.js'
import {VfsStore} from '../../../src/backup/store/vfs.js'
import {parseTargetUrl} from '../../../src/backup/target-url.js'
import {storeContract} from './store-contract.js'

function open(t: Test): VfsStore {
  const root = join(t.testdir(), 'store')
  return new VfsStore(root, `vfs://${root}`)
}

t.test('a directory', async t => storeContract(t, async t => open(t)))

t.test('it keeps nothing but the object, readable by its owner alone', async t => {
  const store = open(t)
  await store.put('backupstore/a/b', Buffer.from('x'))
  t.same(readdirSync(join(store.root, 'backupstore/a')), ['b'])
})

t.test('folders that have become empty go, up to the common one', async t => {
  const store = open(t)
  await store.put('backupstore/a/b/c', Buffer.from('x'))
  await store.remove('backupstore/a/b/c')
  t.notOk(existsSync(join(store.root, 'backupstore/a')))
  t.ok(existsSync(join(store.root, 'backupstore')))
})

t.test('a directory that cannot be read is an error and not empty', async t => {
  const store = open(t)
  mkdirSync(join(store.root, 'backupstore'), {recursive: true})
  writeFileSync(join(store.root, 'backupstore/v'), 'a file where a directory should be')
  await t.rejects(store.children('backupstore/v/'), {code: 'LH_IO'})
  await t.rejects(store.head('backupstore/v/x'), {code: 'LH_IO'})
  await t.rejects(store.put('backupstore/v/x', Buffer.from('x')), {code: 'LH_IO'})
})

t.test('no permission is an error and not empty', {skip: process.getuid?.() === 0 && 'root may read everything'}, async t => {
  const store = open(t)
  await store.put('backupstore/v/x', Buffer.from('x'))
  chmodSync(join(store.root, 'backupstore/v'), 0)
  t.teardown(() => chmodSync(join(store.root, 'backupstore/v'), 0o700))
  await t.rejects(store.children('backupstore/v/'), {code: 'LH_IO'})
  await t.rejects(store.head('backupstore/v/x'), {code: 'LH_IO'})
})

t.test('a failed write leaves no other name behind', async t => {
  const store = open(t)
  mkdirSync(join(store.root, 'backupstore/taken'), {recursive: true})
  await t.rejects(store.put('backupstore/taken', Buffer.from('x')), {code: 'LH_IO'})
  t.same(readdirSync(join(store.root, 'backupstore')), ['taken'])
})

t.test('URLs', async t => {
  const store = await openStore(parseTargetUrl('vfs:///srv/store/?volume=ab'), {env: {}})
  t.match(store, {root: '/srv/store', url: 'vfs:///srv/store/'})
  await t.rejects(openStore(parseTargetUrl('vfs://host/x'), {env: {}}), {code: 'LH_USAGE'})
  await t.rejects(openStore(parseTargetUrl('vfs:///'), {env: {}}), {code: 'LH_USAGE'})
  await t.rejects(openStore(parseTargetUrl('file:///x'), {env: {}}), {code: 'LH_UNSUPPORTED', message: /driver file is not supported/})
})
