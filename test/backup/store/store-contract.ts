import {randomBytes} from 'node:crypto'
import type {Test} from 'tap'
import type {BackupStore, StoredObject} from '../../../src/backup/store/backup-store.js'

const MAX = 64 * 1024 ** 2

/** The promises that every store keeps. `open` gives a store that is empty, and closes it with the test. Each store's own test file calls this. */
export function storeContract(t: Test, open: (t: Test) => Promise<BackupStore>): void {
  t.test('what was put is read, listed and told', async t => {
    const store = await open(t)
    const data = randomBytes(3 * 1024 ** 2 + 5)
    await store.put('backupstore/a/b.cfg', data)
    t.ok(data.equals(await store.get('backupstore/a/b.cfg', MAX)))
    const told = await store.head('backupstore/a/b.cfg')
    t.match(told, {key: 'backupstore/a/b.cfg', sizeBytes: data.length})
    t.ok(Math.abs(told!.modifiedMs - Date.now()) < 600_000, 'a time in milliseconds')
  })

  t.test('nothing at all is an object, too', async t => {
    const store = await open(t)
    await store.put('backupstore/empty', Buffer.alloc(0))
    t.equal((await store.get('backupstore/empty', MAX)).length, 0)
    t.equal((await store.head('backupstore/empty'))?.sizeBytes, 0)
  })

  t.test('what is not there is NOT_FOUND, undefined and empty', async t => {
    const store = await open(t)
    await t.rejects(store.get('backupstore/no/such', MAX), {code: 'LH_NOT_FOUND', message: /cannot find backupstore\/no\/such/})
    t.equal(await store.head('backupstore/no/such'), undefined)
    t.same(await store.children('backupstore/no/'), {folders: [], objects: []})
    t.same(await listed(store, 'backupstore/no/'), [])
    await store.remove('backupstore/no/such')
  })

  t.test('a put replaces', async t => {
    const store = await open(t)
    await store.put('backupstore/x', Buffer.from('first, and longer'))
    await store.put('backupstore/x', Buffer.from('second'))
    t.equal((await store.get('backupstore/x', MAX)).toString(), 'second')
    t.same(await listed(store, 'backupstore/'), ['backupstore/x'])
  })

  t.test('a listing is of one folder, at any depth or of one level', async t => {
    const store = await open(t)
    const keys = ['backupstore/v/a/1', 'backupstore/v/a/2', 'backupstore/v/b/c/3', 'backupstore/v/4', 'backupstore/vv/5']
    for (const key of keys) await store.put(key, Buffer.from(key))
    t.same(await listed(store, 'backupstore/v/'), keys.slice(0, 4).sort())
    const {folders, objects} = await store.children('backupstore/v/')
    t.same(folders, ['a', 'b'])
    t.same(objects.map(({key, sizeBytes}) => [key, sizeBytes]), [['backupstore/v/4', 15]])
  })

  t.test('more objects than one page of a listing has', async t => {
    const store = await open(t)
    const keys = Array.from({length: 1203}, (_, index) => `backupstore/blocks/${String(index % 7)}/${String(index).padStart(5, '0')}.blk`)
    for (let at = 0; at < keys.length; at += 50) await Promise.all(keys.slice(at, at + 50).map(key => store.put(key, Buffer.from('x'))))
    t.same(await listed(store, 'backupstore/blocks/'), keys.sort())
    t.equal((await store.children('backupstore/blocks/')).folders.length, 7)
  })

  t.test('a removed object is gone, and only that', async t => {
    const store = await open(t)
    for (const key of ['backupstore/d/one', 'backupstore/d/one.sig']) await store.put(key, Buffer.from(key))
    await store.remove('backupstore/d/one')
    t.same(await listed(store, 'backupstore/d/'), ['backupstore/d/one.sig'])
    await store.remove('backupstore/d/one.sig')
    await store.put('backupstore/d/again', Buffer.from('x'))
    t.same(await listed(store, 'backupstore/'), ['backupstore/d/again'])
  })

  t.test('an object that is larger than it may be is not read', async t => {
    const store = await open(t)
    await store.put('backupstore/big', Buffer.alloc(4097))
    await t.rejects(store.get('backupstore/big', 4096), {code: 'LH_CORRUPT'})
    t.equal((await store.get('backupstore/big', 4097)).length, 4097)
  })

  t.test('a reader sees the old or the new content, whole', async t => {
    const store = await open(t)
    const contents = [Buffer.alloc(200_000, 'a'), Buffer.alloc(150_000, 'b')]
    await store.put('backupstore/race', contents[0]!)
    let writing = true
    const write = (async () => {
      for (let round = 0; round < 20; round++) await store.put('backupstore/race', contents[round % 2]!)
      writing = false
    })()
    while (writing) {
      const read = await store.get('backupstore/race', MAX)
      if (!contents.some(content => content.equals(read))) t.fail('a mixture was read')
    }
    await write
    t.pass('never a mixture')
  })

  t.test('puts and removes of the same folder at once', async t => {
    const store = await open(t)
    await Promise.all(
      Array.from({length: 8}, async (_, worker) => {
        for (let round = 0; round < 15; round++) {
          await store.put(`backupstore/busy/deep/${worker}`, Buffer.from('x'))
          await store.remove(`backupstore/busy/deep/${worker}`)
        }
        await store.put(`backupstore/busy/deep/${worker}`, Buffer.from('x'))
      }),
    )
    t.equal((await listed(store, 'backupstore/busy/')).length, 8)
  })

  t.test('what was aborted is not done', async t => {
    const store = await open(t)
    const reason = new Error('enough')
    const signal = AbortSignal.abort(reason)
    await t.rejects(store.put('backupstore/never', Buffer.from('x'), signal))
    await t.rejects(store.get('backupstore/never', MAX, signal))
    t.equal(await store.head('backupstore/never'), undefined)
  })

  t.test('keys that lead elsewhere are refused', async t => {
    const store = await open(t)
    for (const key of ['../x', 'a/../b', '/a', 'a//b', '', 'a/\0']) await t.rejects(store.put(key, Buffer.from('x')), RangeError, JSON.stringify(key))
  })

  t.test('closing twice', async t => {
    const store = await open(t)
    await store.close()
    await store.close()
  })
}

async function listed(store: BackupStore, folder: string): Promise<string[]> {
  const found: StoredObject[] = []
  for await (const object of store.list(folder)) found.push(object)
  return found.map(({key}) => key).sort()
}
