import t, {type Test} from 'tap'
import {slabs, type Slab} from '../../src/lib/net/slab.js'
import {ERRNO, OP, type Io} from '../../src/protocol/block-device.js'
import {FRAME} from '../../src/protocol/frame.js'
import {FrameClient, type FrameClientOwner} from '../../src/protocol/frame-client.js'
import {seededRandom} from '../replica/support/random.js'
import {encodeFrame, FramePeer, type Frame} from '../support/frames.js'
import {Pattern} from '../support/pattern.js'
import {Request, withSlab} from '../support/request.js'
import {nodeSocket, socketPair} from '../support/sockets.js'
import {until} from '../support/until.js'

const pattern = new Pattern()

/** Finishes requests as their answers come, and remembers how the connection ended. */
class Owner implements FrameClientOwner {
  readonly lost: {reason: Error; unanswered: Io[]}[] = []
  readonly lengths: number[] = []
  texts: string[] = []

  onReply(_client: FrameClient, io: Io, error: number, text: string, slab: Slab | undefined, start: number, length: number): void {
    this.texts.push(text)
    this.lengths.push(length)
    if (error === 0 && io.op === OP.READ) io.onData(slab!, start)
    io.onDone(error)
  }

  onLost(_client: FrameClient, reason: Error, unanswered: Io[]): void {
    this.lost.push({reason, unanswered})
  }
}

interface Connected {
  readonly client: FrameClient
  readonly owner: Owner
  /** A server made by hand. */
  readonly server: FramePeer
  request(type: number, io: Request): Request
  write(io: Request, data: Buffer, type?: number): Request
}

function connect(t: Test, timeoutMs = 60_000): Connected {
  const [near, far] = socketPair()
  const owner = new Owner()
  const client = new FrameClient(near, owner, 'replica tcp://10.0.0.1:10000', timeoutMs)
  const server = new FramePeer(nodeSocket(far))
  t.teardown(() => {
    client.close(new Error('the test is over'))
    server.socket.destroy()
  })
  return {
    client,
    owner,
    server,
    request: (type, io) => {
      io.startedAt = performance.now()
      client.request(type, io)
      return io
    },
    write: (io, data, type = FRAME.WRITE) => {
      io.startedAt = performance.now()
      withSlab(data, (slab, start) => client.write(type, io, slab, start))
      return io
    },
  }
}

function answer(to: Frame, rest: Partial<Frame> = {}): Partial<Frame> {
  return {sequence: to.sequence, offset: to.offset, size: to.size, type: FRAME.RESPONSE, ...rest}
}

t.test('requests as they go over the wire, and what comes back', async t => {
  const {client, server, request, write} = connect(t)
  const data = pattern.at(0, 5000)
  const writing = write(new Request(OP.WRITE, 4096, 5000), data)
  const written = await server.next()
  t.match(written, {magic: 0x1b01, type: FRAME.WRITE, offset: 4096n, size: 5000, payload: data})
  t.equal(client.inFlight, 1)
  t.equal(client.bytesInFlight, 5000)
  server.send(answer(written))
  t.match(await writing.answered, {error: 0})

  const reading = request(FRAME.READ, new Request(OP.READ, 8192, 3000))
  const asked = await server.next()
  t.match(asked, {type: FRAME.READ, offset: 8192n, size: 3000, payload: Buffer.alloc(0)})
  t.not(asked.sequence, written.sequence)
  server.send(answer(asked, {payload: pattern.at(99, 3000)}))
  t.same((await reading.answered).data, pattern.at(99, 3000))

  const flushing = request(FRAME.FLUSH, new Request(OP.FLUSH))
  const flush = await server.next()
  t.match(flush, {type: FRAME.FLUSH, offset: 0n, size: 0})
  server.send(answer(flush))
  t.match(await flushing.answered, {error: 0})

  const discarding = request(FRAME.UNMAP, new Request(OP.DISCARD, 0, 0xfffff000))
  const unmap = await server.next()
  t.match(unmap, {type: FRAME.UNMAP, size: 0xfffff000, payload: Buffer.alloc(0)})
  server.send(answer(unmap, {size: 4096}))
  t.match(await discarding.answered, {error: 0})
  t.equal(client.inFlight, 0)
  t.equal(client.bytesInFlight, 0)
})

t.test('errors', async t => {
  const {owner, server, request} = connect(t)
  for (const [text, errno] of [
    ['input/output error', ERRNO.EIO],
    ['write failed: no space left on device', ERRNO.ENOSPC],
    ['', ERRNO.EIO],
    ['x'.repeat(200_000), ERRNO.EIO],
  ] as const) {
    const io = request(FRAME.READ, new Request(OP.READ, 0, 10))
    server.send(answer(await server.next(), {type: FRAME.ERROR, size: text.length, payload: Buffer.from(text)}))
    t.match(await io.answered, {error: errno})
    t.equal(owner.texts.at(-1), text.slice(0, 4096))
  }
  t.same(owner.lost, [])
})

t.test('answers in any order, some in pieces', async t => {
  const random = seededRandom(t)
  const {client, server, request} = connect(t)
  for (let round = 0; round < 3; round++) {
    const requests = Array.from({length: 700}, () => {
      const length = 1 + random.below(2000)
      return request(FRAME.READ, new Request(OP.READ, random.below(1_000_000), length))
    })
    const asked: Frame[] = []
    for (const _ of requests) asked.push(await server.next())
    const replies = asked.map(frame => encodeFrame(answer(frame, {payload: pattern.at(Number(frame.offset), frame.size)})))
    for (let left = replies.length; left > 1; left--) {
      const other = random.below(left)
      ;[replies[left - 1], replies[other]] = [replies[other]!, replies[left - 1]!]
    }
    const bytes = Buffer.concat(replies)
    for (let at = 0; at < bytes.length; ) {
      const length = 1 + random.below(60_000)
      server.socket.write(bytes.subarray(at, at + length))
      at += length
      await new Promise(resolve => setImmediate(resolve))
    }
    for (const io of requests) t.equal(pattern.mismatch((await io.answered).data, io.offset), -1)
  }
  t.equal(client.inFlight, 0)
})

t.test('thousands in flight: room is made for them, and one slow request keeps its number', async t => {
  const {client, server, request} = connect(t)
  const slow = request(FRAME.READ, new Request(OP.READ, 77, 1))
  const slowAsked = await server.next()
  const seen = new Set([slowAsked.sequence])
  for (const count of [10, 5000, 3000, 1]) {
    const requests = Array.from({length: count}, (_, index) => request(FRAME.READ, new Request(OP.READ, index, 1)))
    const asked: Frame[] = []
    for (const _ of requests) asked.push(await server.next())
    for (const {sequence} of asked) {
      if (seen.has(sequence)) t.fail(`sequence ${sequence} is used twice`)
      seen.add(sequence)
    }
    t.equal(client.inFlight, count + 1)
    server.socket.write(Buffer.concat(asked.map(frame => encodeFrame(answer(frame, {payload: pattern.at(Number(frame.offset), 1)})))))
    for (const io of requests) t.equal((await io.answered).data[0], pattern.at(io.offset, 1)[0])
  }
  // Numbers come round to the slot of the slow one several times.
  for (let index = 0; index < 40_000; index += 500) {
    const requests = Array.from({length: 500}, () => request(FRAME.FLUSH, new Request(OP.FLUSH)))
    const asked: Frame[] = []
    for (const _ of requests) asked.push(await server.next())
    server.socket.write(Buffer.concat(asked.map(frame => encodeFrame(answer(frame)))))
    await Promise.all(requests.map(io => io.answered))
  }
  t.equal(slow.answers, 0)
  server.send(answer(slowAsked, {payload: Buffer.from('!')}))
  t.equal(`${(await slow.answered).data}`, '!')
  t.equal(client.inFlight, 0)
})

t.test('a server that cannot be trusted is given up, and nothing that was asked is forgotten', async t => {
  const nonsense: Record<string, {send: (asked: Frame) => Buffer; code: string; message: RegExp}> = {
    'an answer to what was never asked': {
      send: asked => encodeFrame(answer(asked, {sequence: asked.sequence + 1})),
      code: 'LH_PROTOCOL',
      message: /an answer to request \d+, which was not asked$/,
    },
    'an answer to a number far away in the same slot': {
      send: asked => encodeFrame(answer(asked, {sequence: (asked.sequence + 4096) >>> 0})),
      code: 'LH_PROTOCOL',
      message: /which was not asked$/,
    },
    'an answer of an unknown type': {send: asked => encodeFrame(answer(asked, {type: 9})), code: 'LH_PROTOCOL', message: /unknown type 9$/},
    'a request instead of an answer': {
      send: asked => encodeFrame(answer(asked, {type: FRAME.WRITE, payload: Buffer.alloc(5)})),
      code: 'LH_PROTOCOL',
      message: /unknown type 1$/,
    },
    'the type that only initiators understand': {send: asked => encodeFrame(answer(asked, {type: FRAME.ENOSPC})), code: 'LH_PROTOCOL', message: /type 8$/},
    'something that is not a frame': {
      send: () => Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
      code: 'LH_PROTOCOL',
      message: /sent something that is not a frame$/,
    },
    'a payload larger than any answer': {
      send: asked => encodeFrame({...answer(asked), payloadLength: 0xffffffff}),
      code: 'LH_PROTOCOL',
      message: /an answer of 4294967295 bytes/,
    },
    "upstream's last frame": {
      send: () => encodeFrame({magic: 0, type: FRAME.CLOSE}),
      code: 'LH_UNREACHABLE',
      message: /^replica tcp:\/\/10\.0\.0\.1:10000: closed by the peer$/,
    },
    'the end': {send: () => Buffer.alloc(0), code: 'LH_UNREACHABLE', message: /closed by the peer$/},
    'the end in the middle of an answer': {
      send: asked => encodeFrame({...answer(asked), payloadLength: 10}).subarray(0, 30),
      code: 'LH_UNREACHABLE',
      message: /closed in the middle of a message$/,
    },
  }
  for (const [what, {send, code, message}] of Object.entries(nonsense)) {
    t.test(what, async t => {
      const {client, owner, server, request, write} = connect(t)
      const first = request(FRAME.READ, new Request(OP.READ, 0, 100))
      const second = write(new Request(OP.WRITE, 0, 100), Buffer.alloc(100))
      const third = request(FRAME.FLUSH, new Request(OP.FLUSH))
      const asked = [await server.next(), await server.next(), await server.next()]
      server.send(answer(asked[1]!))
      await second.answered
      server.socket.end(send(asked[0]!))
      await until(() => owner.lost.length > 0, 'it is given up')
      t.match(owner.lost, [{reason: {code, message}}])
      t.same(owner.lost[0]!.unanswered, [first, third], 'in the order they were asked')
      t.equal(first.answers, 0)
      t.equal(client.inFlight, 0)
      t.equal(client.bytesInFlight, 0)
    })
  }

  t.test('the same answer twice', async t => {
    const {owner, server, request} = connect(t)
    const io = request(FRAME.READ, new Request(OP.READ, 0, 1))
    const asked = await server.next()
    const bytes = encodeFrame(answer(asked, {payload: Buffer.from('x')}))
    server.socket.write(Buffer.concat([bytes, bytes]))
    await until(() => owner.lost.length > 0, 'it is given up')
    t.match(owner.lost, [{reason: {code: 'LH_PROTOCOL'}, unanswered: []}])
    t.equal(io.answers, 1)
  })

  t.test('a read answered with another length: the owner is told which', async t => {
    const {owner, server, request} = connect(t)
    request(FRAME.READ, new Request(OP.READ, 0, 10))
    server.send(answer(await server.next(), {size: 3, payload: Buffer.from('abc')}))
    await until(() => owner.lengths.length > 0, 'the answer')
    t.same(owner.lengths, [3])
  })
})

t.test('close() hands back what is in flight, once', async t => {
  const before = slabs.inUse
  const {client, owner, server, request, write} = connect(t)
  const ios = [request(FRAME.READ, new Request(OP.READ, 0, 1)), write(new Request(OP.WRITE, 0, 100_000), Buffer.alloc(100_000))]
  await server.next()
  client.close(new Error('first'))
  client.close(new Error('second'))
  t.match(owner.lost, [{reason: {message: 'first'}}])
  t.same(owner.lost[0]!.unanswered, ios)
  client.sweep()
  await server.end()
  await until(() => slabs.inUse <= before, 'every slab has been given back')
})

t.test('a peer that does not read: what is written is held until the connection ends', async t => {
  const before = slabs.inUse
  const {client, owner, server, write} = connect(t)
  server.socket.pause()
  for (let index = 0; index < 300; index++) write(new Request(OP.WRITE, 0, 100_000), Buffer.alloc(100_000, index))
  await new Promise(resolve => setTimeout(resolve, 20))
  t.ok(client.bytesQueued > 20_000_000)
  client.close(new Error('enough'))
  t.equal(owner.lost[0]?.unanswered.length, 300)
  await until(() => slabs.inUse <= before, 'every slab has been given back')
})

t.test('time-outs', async t => {
  t.test('an idle peer is asked whether it is there', async t => {
    const {client, owner, server} = connect(t, 200)
    for (let round = 0; round < 3; round++) {
      client.sweep()
      const ping = await server.next()
      t.match(ping, {type: FRAME.PING, offset: 0n, size: 0})
      client.sweep()
      await new Promise(resolve => setImmediate(resolve))
      t.equal(server.waiting, 0, 'one ping at a time')
      server.send(answer(ping))
      await new Promise(resolve => setTimeout(resolve, 10))
    }
    t.same(owner.lost, [])
  })

  t.test('an idle peer that does not answer is lost', async t => {
    const {client, owner} = connect(t, 8000)
    const started = performance.now()
    client.sweep(started)
    client.sweep(started + 7999)
    t.same(owner.lost, [], 'not yet')
    client.sweep(started + 8001)
    t.match(owner.lost, [{reason: {code: 'LH_TIMEOUT', message: /: no answer for 8000 ms$/}, unanswered: []}])
  })

  t.test('a ping answered with an error', async t => {
    const {client, owner, server} = connect(t)
    client.sweep()
    server.send(answer(await server.next(), {type: FRAME.ERROR, payload: Buffer.from('replica no longer exist')}))
    await until(() => owner.lost.length > 0, 'it is given up')
    t.match(owner.lost, [{reason: {code: 'LH_UNREACHABLE', message: /: replica no longer exist$/}}])
  })

  t.test('a silent peer is lost with all that it was asked', async t => {
    const {client, owner, request} = connect(t, 8000)
    const ios = [request(FRAME.READ, new Request(OP.READ, 0, 1)), request(FRAME.FLUSH, new Request(OP.FLUSH))]
    client.sweep()
    t.same(owner.lost, [])
    client.sweep(performance.now() + 8001)
    t.match(owner.lost, [{reason: {code: 'LH_TIMEOUT', message: /: no answer for 8000 ms$/}}])
    t.same(owner.lost[0]!.unanswered, ios)
  })

  t.test('the time counts from the request, however long there was none before', async t => {
    const {client, owner, request} = connect(t, 60_000)
    // The reactor sleeps and its clock stands still.
    await new Promise(resolve => setTimeout(resolve, 250))
    const before = performance.now()
    request(FRAME.READ, new Request(OP.READ, 0, 1))
    client.sweep(before + 60_000)
    t.same(owner.lost, [])
  })

  t.test('a peer that finishes others is kept, unless one request waits four times as long', async t => {
    const {client, owner, server, request} = connect(t, 60_000)
    const stuck = request(FRAME.READ, new Request(OP.READ, 0, 1))
    await server.next()
    const other = request(FRAME.FLUSH, new Request(OP.FLUSH))
    server.send(answer(await server.next()))
    await other.answered
    stuck.startedAt -= 230_000
    client.sweep()
    t.same(owner.lost, [])
    stuck.startedAt -= 20_000
    client.sweep()
    t.match(owner.lost, [{reason: {code: 'LH_TIMEOUT', message: /: a request has waited for 240000 ms$/}}])
    t.same(owner.lost[0]!.unanswered, [stuck])
  })

  const syncing = [[FRAME.FLUSH, 0], [FRAME.WRITE_DURABLE, 512], [FRAME.WRITE_ATOMIC, 512]] as const
  const sync = ({request, write}: Connected, [type, length]: (typeof syncing)[number]): Request =>
    length === 0 ? request(type, new Request(OP.FLUSH)) : write(new Request(OP.WRITE, 0, length), Buffer.alloc(length), type)

  for (const kind of syncing) {
    t.test(`a peer that waits for its disk is asked whether it is there, and has its time (type ${kind[0]})`, async t => {
      const connected = connect(t, 8000)
      const {client, owner, server} = connected
      const io = sync(connected, kind)
      await server.next()
      // The greatest moment the client may have heard of it.
      for (let now = performance.now() + 1000; now < io.startedAt + 119_000; now += 1000) {
        client.sweep(now)
        const ping = await server.next()
        t.match(ping, {type: FRAME.PING})
        server.send(answer(ping))
        await until(() => !client.isCalled, 'the answer is here')
      }
      t.same(owner.lost, [])
      client.sweep(io.startedAt + 120_001)
      t.match(owner.lost, [{reason: {code: 'LH_TIMEOUT', message: /: a request has waited for 120000 ms$/}, unanswered: [io]}])
    })
  }

  t.test('and less of it when another has done the same already', async t => {
    const connected = connect(t, 8000)
    const {client, owner} = connected
    const io = sync(connected, syncing[0])
    io.succeeded = 1
    client.sweep(io.startedAt + 31_999)
    t.same(owner.lost, [])
    client.sweep(io.startedAt + 32_001)
    t.match(owner.lost, [{reason: {message: /: a request has waited for 32000 ms$/}}])
  })

  t.test('a peer that waits for its disk and does not answer a ping is lost', async t => {
    const connected = connect(t, 8000)
    const {client, owner} = connected
    const io = sync(connected, syncing[0])
    client.sweep(io.startedAt + 1000)
    client.sweep(io.startedAt + 8999)
    t.same(owner.lost, [])
    client.sweep(io.startedAt + 9001)
    t.match(owner.lost, [{reason: {code: 'LH_TIMEOUT', message: /: no answer for 8000 ms$/}, unanswered: [io]}])
  })

  t.test('a read is not given the time of the sync that it waits beside', async t => {
    const connected = connect(t, 8000)
    const {client, owner, request} = connected
    const io = sync(connected, syncing[0])
    io.startedAt -= 50_000
    const read = request(FRAME.READ, new Request(OP.READ, 0, 1))
    client.sweep(read.startedAt + 7999)
    t.same(owner.lost, [])
    client.sweep(performance.now() + 8001)
    t.match(owner.lost, [{reason: {message: /: no request finished for 8000 ms$/}}])
  })

  t.test('what needs a sync is told apart also after the table of requests has grown', async t => {
    const connected = connect(t, 8000)
    const {client, owner, request} = connected
    const io = sync(connected, syncing[0])
    for (let count = 0; count < 1000; count++) request(FRAME.READ, new Request(OP.READ, 0, 1))
    const {server} = connected
    for (let count = 0; count < 1001; count++) {
      const frame = await server.next()
      if (frame.type === FRAME.READ) server.send(answer(frame, {size: 1, payload: Buffer.alloc(1)}))
    }
    await until(() => client.inFlight === 1, 'all reads are answered')
    client.sweep(io.startedAt + 119_000)
    t.same(owner.lost, [])
  })
})

t.test('a server that sends random garbage', async t => {
  const random = seededRandom(t)
  const before = slabs.inUse
  for (let round = 0; round < 200; round++) {
    const {client, owner, server, request} = connect(t)
    request(FRAME.READ, new Request(OP.READ, 0, 1000))
    const asked = await server.next()
    // Right up to some field, then random.
    const bytes = encodeFrame(answer(asked, {payload: Buffer.alloc(1000)}))
    const garbage = Buffer.alloc(random.below(5000))
    random.fill(garbage)
    server.socket.write(Buffer.concat([bytes.subarray(0, random.below(bytes.length)), garbage]))
    server.socket.end()
    await until(() => owner.lost.length > 0, 'the connection ends')
    t.match(owner.lost[0]!.reason, {code: /^LH_(PROTOCOL|UNREACHABLE)$/})
    t.equal(client.inFlight, 0)
  }
  await until(() => slabs.inUse <= before, 'every slab has been given back')
})

