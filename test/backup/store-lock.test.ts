import {utimesSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {LOCK, StoreLock} from '../../src/backup/store-lock.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {locksFolder} from '../../src/backup/format/store-layout.js'
import {FaultyStore} from './faulty-store.js'

const settleMs = 20

function open(t: Test): VfsStore {
  const root = t.testdir()
  return new VfsStore(root, `vfs://${root}`)
}

t.test('one type together, two types never', async t => {
  const store = open(t)
  const first = await StoreLock.take(store, 'vol', LOCK.CREATE_OR_RESTORE, {settleMs})
  t.equal(await first.isShared(), false)
  const second = await StoreLock.take(store, 'vol', LOCK.CREATE_OR_RESTORE, {settleMs})
  t.equal(await first.isShared(), true)
  await t.rejects(StoreLock.take(store, 'vol', LOCK.DELETE, {settleMs}), {code: 'LH_BUSY', message: /failed to acquire lock .* when performing backup delete, please try again later/})
  await StoreLock.take(store, 'other', LOCK.DELETE, {settleMs}).then(lock => lock.close())
  await first.close()
  await second.close()
  await using third = await StoreLock.take(store, 'vol', LOCK.DELETE, {settleMs})
  third.checkHeld()
  t.same((await store.children(locksFolder('vol'))).objects.map(({key}) => key), [`${locksFolder('vol')}${third.name}.lck`], 'refused and given back locks are gone')
})

t.test('of two that come at once, of different types, at most one gets it', async t => {
  const store = open(t)
  for (let round = 0; round < 10; round++) {
    const both = await Promise.allSettled([LOCK.CREATE_OR_RESTORE, LOCK.DELETE].map(type => StoreLock.take(store, 'vol', type, {settleMs: 60})))
    const taken = both.filter(result => result.status === 'fulfilled').map(({value}) => value)
    t.ok(taken.length <= 1)
    await Promise.all(taken.map(lock => lock.close()))
  }
})

t.test('a lock of upstream counts for 150 s, and one that cannot be read as well', async t => {
  const store = open(t)
  for (const content of ['{"Name":"lock-0123456789abcdef","Type":1,"Acquired":true}', '{"Na']) {
    await store.put(`${locksFolder('vol')}lock-0123456789abcdef.lck`, Buffer.from(content))
    await t.rejects(StoreLock.take(store, 'vol', LOCK.DELETE, {settleMs}), {code: 'LH_BUSY'}, content)
    const old = Date.now() / 1000 - 160
    utimesSync(join(store.root, locksFolder('vol'), 'lock-0123456789abcdef.lck'), old, old)
    await StoreLock.take(store, 'vol', LOCK.DELETE, {settleMs}).then(lock => lock.close())
  }
})

t.test('a listing that fails is a refusal', async t => {
  const store = open(t)
  const failing = new FaultyStore(store, call => {
    if (call === 'children') throw new Error('forbidden')
  })
  await t.rejects(StoreLock.take(failing, 'vol', LOCK.DELETE, {settleMs}), /forbidden/)
  t.same((await store.children(locksFolder('vol'))).objects, [])
})

t.test('an older lock that is not acquired yet blocks', async t => {
  const store = open(t)
  await store.put(`${locksFolder('vol')}lock-x.lck`, Buffer.from('{"Name":"lock-x","Type":2,"Acquired":false}'))
  const before = Date.now() / 1000 - 30
  utimesSync(join(store.root, locksFolder('vol'), 'lock-x.lck'), before, before)
  writeFileSync(join(store.root, locksFolder('vol'), 'readme'), 'something else')
  await t.rejects(StoreLock.take(store, 'vol', LOCK.CREATE_OR_RESTORE, {settleMs}), {code: 'LH_BUSY'})
})
