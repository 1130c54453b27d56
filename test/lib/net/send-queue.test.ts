import {constants} from 'node:os'
import t, {type Test} from 'tap'
import {SendQueue} from '../../../src/lib/net/send-queue.js'
import {SLAB_BYTES, slabs, type Slab} from '../../../src/lib/net/slab.js'
import {closeFd, receive} from '../../../src/lib/net/socket-calls.js'
import {seededRandom} from '../../replica/support/random.js'
import {shrinkBuffers, socketPair} from '../../support/sockets.js'

interface Pipe {
  readonly queue: SendQueue
  /** Sends what goes; the same as SendQueue.send(). */
  send(): number
  /** Everything that has arrived and was not received before. */
  receive(): Buffer
}

function pipe(t: Test, small = false): Pipe {
  const [from, to] = socketPair()
  if (small) shrinkBuffers(from)
  const queue = new SendQueue()
  t.teardown(() => {
    queue.clear()
    closeFd(from)
    closeFd(to)
  })
  return {
    queue,
    send: () => queue.send(from),
    receive: () => {
      const into = slabs.take()
      const parts: Buffer[] = []
      for (let count = receive(to, into.address, into.size); count > 0; count = receive(to, into.address, into.size)) {
        parts.push(Buffer.from(into.buffer.subarray(0, count)))
      }
      into.release()
      return Buffer.concat(parts)
    },
  }
}

function filled(value: number): Slab {
  const slab = slabs.take()
  slab.buffer.fill(value)
  return slab
}

t.test('pieces arrive in the order they were pushed, whatever their number', async t => {
  const slab = slabs.take()
  for (let at = 0; at + 4 <= slab.size; at += 4) slab.buffer.writeUInt32LE(at, at)
  for (const pieces of [1, 2, 255, 256, 257, 1023, 1024, 1025, 2500]) {
    const {queue, send, receive} = pipe(t)
    const expected: Buffer[] = []
    for (let index = 0; index < pieces; index++) {
      // With a gap, so that no two become one.
      queue.push(slab, index * 16, 12)
      expected.push(slab.buffer.subarray(index * 16, index * 16 + 12))
    }
    t.equal(queue.bytes, pieces * 12)
    t.equal(send(), 0, `${pieces} pieces`)
    t.same(receive(), Buffer.concat(expected))
    t.notOk(queue.pending)
    t.equal(queue.bytes, 0)
  }
  t.equal(slab.references, 1)
  slab.release()
})

t.test('nothing is a piece too', async t => {
  const {queue, send, receive} = pipe(t)
  const slab = filled(1)
  queue.push(slab, 0, 0)
  t.notOk(queue.pending)
  t.equal(send(), 0)
  t.equal(receive().length, 0)
  slab.release()
})

t.test('a slab is held until its last byte is sent, and not longer', async t => {
  const random = seededRandom(t)
  for (let round = 0; round < 30; round++) {
    const {queue, send, receive} = pipe(t, true)
    const used = [filled(1), filled(2), filled(3)]
    let sources = [...used]
    const expected: Buffer[] = []
    const received: Buffer[] = []
    for (let turn = 0; turn < 8; turn++) {
      // Whoever finds a slab unshared at the beginning of a turn may write it; one that is shared is left alone.
      sources = sources.map(slab => {
        if (slab.references === 1) {
          slab.buffer.fill(random.below(256))
          return slab
        }
        slab.release()
        used.push(filled(random.below(256)))
        return used.at(-1)!
      })
      for (let count = random.below(20); count > 0; count--) {
        const slab = sources[random.below(3)]!
        const start = random.below(SLAB_BYTES - 9000)
        const length = 1 + random.below(9000)
        queue.push(slab, start, length)
        expected.push(Buffer.from(slab.buffer.subarray(start, start + length)))
      }
      if (random.oneIn(3)) queue.hold()
      else send()
      t.equal(used.some(slab => slab.references > (sources.includes(slab) ? 1 : 0)), queue.pending, 'held as long as something is unsent')
      received.push(receive())
    }
    while (queue.pending) {
      const result = send()
      if (result !== 0 && result !== -constants.errno.EAGAIN) throw new Error(`sending failed: ${result}`)
      received.push(receive())
    }
    t.ok(Buffer.concat(received).equals(Buffer.concat(expected)), 'the bytes that were pushed')
    for (const slab of sources) slab.release()
    t.ok(used.every(slab => slab.references === 0))
  }
})

t.test('more is reserved in one turn than an arena holds: what is not sent yet stays as it is', async t => {
  const {queue, send, receive} = pipe(t)
  const expected: Buffer[] = []
  const length = 100_000
  const others: Slab[] = []
  for (let index = 0; index < 12; index++) {
    const {buffer} = queue.reserve(length)
    buffer.fill(index, queue.reservedAt, queue.reservedAt + length)
    queue.commit(length)
    expected.push(Buffer.alloc(length, index))
    // Somebody else takes memory in the same turn.
    others.push(filled(0xff))
  }
  const received: Buffer[] = []
  while (queue.pending) {
    send()
    received.push(receive())
  }
  t.ok(Buffer.concat(received).equals(Buffer.concat(expected)))
  for (const slab of others) slab.release()
})

t.test('an arena that has been sent is used again, also when another queue is never empty', async t => {
  const before = slabs.inUse
  const {queue, send, receive} = pipe(t)
  for (let turn = 0; turn < 500; turn++) {
    queue.reserve(50_000)
    queue.commit(50_000)
    t.equal(send(), 0)
    receive()
  }
  t.equal(slabs.inUse, before + 1)
  // Never empty: the arena is replaced, and the old ones come back one by one.
  const {queue: busy, send: sendBusy, receive: receiveBusy} = pipe(t, true)
  let most = 0
  for (let turn = 0; turn < 500; turn++) {
    busy.reserve(9000)
    busy.commit(9000)
    sendBusy()
    receiveBusy()
    most = Math.max(most, slabs.inUse)
  }
  t.ok(most <= before + 4, `${most - before} slabs at most`)
})

t.test('what is reserved cannot be larger than a slab', async t => {
  const {queue} = pipe(t)
  t.throws(() => queue.reserve(SLAB_BYTES + 1), RangeError)
  t.equal(queue.reserve(SLAB_BYTES).size, SLAB_BYTES)
})

t.test('clear() gives everything back, sent in part or not', async t => {
  const before = slabs.inUse
  const {queue, send} = pipe(t, true)
  const slab = filled(7)
  for (let index = 0; index < 50; index++) queue.push(slab, index * 10_000, 9000)
  queue.reserve(1000)
  queue.commit(1000)
  t.equal(send(), -constants.errno.EAGAIN)
  queue.push(slab, 0, 100)
  t.ok(slab.references > 1)
  queue.clear()
  t.equal(slab.references, 1)
  t.equal(queue.bytes, 0)
  t.notOk(queue.pending)
  slab.release()
  t.equal(slabs.inUse, before)
  queue.clear()
  t.equal(slabs.inUse, before, 'twice is once')
})

t.test('a peer that is gone is an errno, and the queue stays consistent', async t => {
  const [from, to] = socketPair()
  const queue = new SendQueue()
  const slab = filled(1)
  queue.push(slab, 0, 1000)
  closeFd(to)
  t.equal(queue.send(from), -constants.errno.EPIPE)
  t.ok(queue.pending)
  queue.clear()
  t.equal(slab.references, 1)
  slab.release()
  closeFd(from)
})
