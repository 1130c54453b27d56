import t from 'tap'
import {RangeLock, type Ticket} from '../../src/replica/range-lock.js'

t.test('ranges that do not meet are free at once', async t => {
  const locks = new RangeLock()
  const first = locks.acquire(0, 10)
  t.equal(first.ready, undefined)
  t.equal(locks.acquire(10, 20).ready, undefined)
  t.equal(locks.overlaps(9, 10), true)
  t.equal(locks.overlaps(20, 21), false)
})

t.test('whoever meets a waiting one waits behind it: the order of the calls', async t => {
  const locks = new RangeLock()
  const order: string[] = []
  const enter = async (name: string, ticket: Ticket): Promise<void> => {
    await ticket.ready
    order.push(name)
    locks.release(ticket)
  }
  const a = locks.acquire(0, 10)
  const b = enter('b', locks.acquire(5, 15))
  const c = enter('c', locks.acquire(12, 20))
  const d = enter('d', locks.acquire(0, 30))
  const free = enter('free', locks.acquire(100, 101))
  t.equal(locks.overlaps(18, 19), true, 'a waiting range counts')
  await free
  t.strictSame(order, ['free'])
  order.push('a')
  locks.release(a)
  await Promise.all([b, c, d])
  t.strictSame(order, ['free', 'a', 'b', 'c', 'd'])
  await locks.drained()
})

t.test('drained waits for held and waiting ranges', async t => {
  const locks = new RangeLock()
  await locks.drained()
  const a = locks.acquire(0, 1)
  const b = locks.acquire(0, 1)
  let drained = false
  const done = locks.drained().then(() => {
    drained = true
  })
  locks.release(a)
  await b.ready
  t.equal(drained, false)
  locks.release(b)
  await done
})
