import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {stat} from 'node:fs/promises'
import {setTimeout as delay} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import t, {type Test} from 'tap'
import {ByteStream} from '../../../src/lib/net/byte-stream.js'
import {reactor, type Flushable} from '../../../src/lib/net/reactor.js'
import {slabs} from '../../../src/lib/net/slab.js'
import {nodeSocket, socketPair} from '../../support/sockets.js'
import {until} from '../../support/until.js'
import type {Socket} from 'node:net'

function echo(t: Test): {stream: ByteStream; peer: Socket} {
  const [near, far] = socketPair()
  const handler = {
    onInput(stream: ByteStream): void {
      const {start} = stream
      stream.start = stream.end
      stream.output.push(stream.slab, start, stream.end - start)
      stream.flushSoon()
    },
    onClose: () => undefined,
  }
  const stream = new ByteStream(near, handler, 'the peer')
  const peer = nodeSocket(far)
  t.teardown(() => {
    stream.destroy()
    peer.destroy()
  })
  return {stream, peer}
}

async function roundTrip(peer: Socket): Promise<number> {
  const started = performance.now()
  peer.write('ping')
  await once(peer, 'data')
  return performance.now() - started
}

t.test('asleep, awake, asleep again: every message is answered', async t => {
  const {peer} = echo(t)
  for (const pause of [0, 1, 5, 18, 20, 21, 25, 60, 0, 30, 22, 19, 100, 1]) {
    await delay(pause)
    const ms = await roundTrip(peer)
    t.ok(ms < 30_000, `after ${pause} ms: ${ms.toFixed(1)} ms`)
  }
})

t.test('members come and go while it sleeps', async t => {
  const first = echo(t)
  for (let round = 0; round < 15; round++) {
    await delay(30)
    const second = echo(t)
    await roundTrip(second.peer)
    await delay(round % 2 === 0 ? 30 : 0)
    second.stream.destroy()
    await roundTrip(first.peer)
  }
  await delay(30)
  first.stream.destroy()
  // The last one has gone: it stops; and starts again with the next.
  await delay(30)
  await roundTrip(echo(t).peer)
  const last = echo(t)
  await delay(30)
  last.stream.destroy()
  await roundTrip(echo(t).peer)
})

t.test('without traffic it takes no processor time', async t => {
  const {peer} = echo(t)
  await roundTrip(peer)
  await delay(100)
  const {turn} = reactor
  const before = process.cpuUsage()
  await delay(500)
  const {user, system} = process.cpuUsage(before)
  t.ok((user + system) / 1000 < 100, `${(user + system) / 1000} ms of 500`)
  t.equal(reactor.turn, turn, 'no turn at all')
})

t.test('timers and file operations go on while there is traffic', async t => {
  const {stream, peer} = echo(t)
  const traffic = new AbortController()
  const talk = (async () => {
    while (!traffic.signal.aborted) await roundTrip(peer)
  })()
  const {turn} = reactor
  for (let round = 0; round < 20; round++) {
    await stat('/')
    await delay(1)
  }
  t.ok(reactor.turn > turn)
  traffic.abort()
  await talk
  stream.destroy()
})

t.test('flushes', async t => {
  t.test('happen once for each request, also for one made while flushing', async t => {
    const done: string[] = []
    const second: Flushable = {flush: () => void done.push('second')}
    const first: Flushable = {
      flush: () => {
        done.push('first')
        reactor.flushSoon(second)
      },
    }
    reactor.flushSoon(first)
    t.same(done, [], 'not at once')
    await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    t.same(done, ['first', 'second'])
  })

  t.test('come behind promises that are ready', async t => {
    const order: string[] = []
    reactor.flushSoon({flush: () => void order.push('flush')})
    await Promise.resolve().then(() => order.push('promise'))
    await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    t.same(order, ['promise', 'flush'])
  })

  t.test('are over before a slab is given up', async t => {
    const slab = slabs.take()
    const seen: number[] = []
    reactor.releaseAfterFlush(slab)
    reactor.flushSoon({
      flush: () => {
        seen.push(slab.references)
        if (seen.length < 3) reactor.flushSoon({flush: () => void seen.push(slab.references)})
      },
    })
    await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    t.same(seen, [1, 1])
    t.equal(slab.references, 0)
  })
})

t.test('the process ends as it is told', async t => {
  const program = fileURLToPath(new URL('support/ending.js', import.meta.url))
  const cases = [
    {how: 'return', code: 0, signal: null},
    {how: 'exit', code: 7, signal: null},
    {how: 'throw', code: 1, signal: null},
    {how: 'wait', code: null, signal: 'SIGTERM'},
  ]
  for (const state of ['idle', 'busy']) {
    for (const {how, code, signal} of cases) {
      const child = spawn(process.execPath, [program, state, how], {stdio: ['ignore', 'pipe', 'ignore']})
      const timer = setTimeout(() => child.kill('SIGKILL'), 60_000)
      const exited = once(child, 'exit')
      await once(child.stdout, 'data')
      if (how === 'wait') child.kill('SIGTERM')
      t.same(await exited, [code, signal], `${state}, ${how}`)
      clearTimeout(timer)
    }
  }
})

t.test('the end of everything', async () => {
  await until(() => slabs.inUse === 0, 'every slab has been given back')
})
