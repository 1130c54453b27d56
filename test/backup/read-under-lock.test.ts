import {once} from 'node:events'
import t from 'tap'
import {readUnderLock} from '../../src/backup/read-under-lock.js'
import {LOCK, StoreLock} from '../../src/backup/store-lock.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {LonghornError} from '../../src/lib/errors.js'

t.test('reading begins before the lock is had, and counts when it is', async t => {
  const store = new VfsStore(t.testdir(), 'vfs:///store')
  const order: string[] = []
  let settle = (): void => undefined
  const settled = new Promise<void>(resolve => (settle = resolve))
  const take = async (): Promise<StoreLock> => {
    await settled
    order.push('lock')
    return StoreLock.take(store, 'vol', LOCK.CREATE_OR_RESTORE, {settleMs: 1})
  }
  const result = readUnderLock(take, async guard => {
    guard.checkHeld()
    order.push('read')
    settle()
    return 'content'
  }).then(value => (order.push('end'), value))
  t.equal(await result, 'content')
  t.same(order, ['read', 'lock', 'end'])
  t.same((await store.children('backupstore/volumes/')).folders, [], 'the lock is gone')
})

t.test('a lock that is not to be had ends the reading, and is what is told', async t => {
  const busy = new LonghornError('BUSY', 'held')
  let told: unknown
  const read = async (_guard: unknown, signal: AbortSignal): Promise<never> => {
    await once(signal, 'abort')
    told = signal.reason
    throw busy
  }
  await t.rejects(readUnderLock(async () => Promise.reject(busy), read), busy)
  t.equal(told, busy)
  // What is missing, somebody may just be removing.
  const missing = async (): Promise<never> => Promise.reject(new LonghornError('NOT_FOUND', 'a block'))
  await t.rejects(readUnderLock(async () => Promise.reject(busy), missing), busy)
})

t.test('a failure of the reader gives the lock back', async t => {
  const store = new VfsStore(t.testdir(), 'vfs:///store')
  const take = (signal: AbortSignal): Promise<StoreLock> => StoreLock.take(store, 'vol', LOCK.CREATE_OR_RESTORE, {settleMs: 1, signal})
  await t.rejects(readUnderLock(take, async () => Promise.reject(new LonghornError('CORRUPT', 'damaged'))), {code: 'LH_CORRUPT'})
  t.same((await store.children('backupstore/volumes/')).folders, [])
  const interrupt = new AbortController()
  const read = (_guard: unknown, signal: AbortSignal): Promise<never> => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
  const reading = readUnderLock(take, read, interrupt.signal)
  interrupt.abort(new LonghornError('INTERRUPTED', 'stop'))
  await t.rejects(reading, {code: 'LH_INTERRUPTED'})
  t.same((await store.children('backupstore/volumes/')).folders, [])
})
