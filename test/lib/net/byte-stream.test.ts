import {once} from 'node:events'
import t, {type Test} from 'tap'
import {LonghornError} from '../../../src/lib/errors.js'
import {ByteStream, MAX_UNIT_BYTES, type StreamHandler} from '../../../src/lib/net/byte-stream.js'
import {Listener} from '../../../src/lib/net/listener.js'
import {slabs} from '../../../src/lib/net/slab.js'
import {Pattern} from '../../support/pattern.js'
import {dial, duplicateFd, nodeSocket, receiveAll, resetFd, shrinkBuffers, socketPair} from '../../support/sockets.js'
import {until} from '../../support/until.js'
import type {Socket} from 'node:net'

const pattern = new Pattern()

/** Keeps what it is shown; can be told to do something else. */
class Recorder implements StreamHandler {
  readonly chunks: Buffer[] = []
  readonly closings: (Error | undefined)[] = []
  drains = 0
  input: (stream: ByteStream) => void = stream => {
    this.chunks.push(Buffer.from(stream.input.subarray(stream.start, stream.end)))
    stream.start = stream.end
  }

  onInput(stream: ByteStream): void {
    this.input(stream)
  }

  onDrain(): void {
    this.drains++
  }

  onClose(_stream: ByteStream, reason: Error | undefined): void {
    this.closings.push(reason)
  }

  get received(): Buffer {
    return Buffer.concat(this.chunks)
  }
}

function open(t: Test): {stream: ByteStream; handler: Recorder; peer: Socket; farFd: number} {
  const [near, far] = socketPair()
  const handler = new Recorder()
  const stream = new ByteStream(near, handler, 'the peer')
  const peer = nodeSocket(far)
  t.teardown(() => {
    stream.destroy()
    peer.destroy()
  })
  return {stream, handler, peer, farFd: far}
}

/** A stream over TCP; `far` is the other end's descriptor, for closing it in ways that Node's sockets do not know. */
async function openTcp(t: Test): Promise<{stream: ByteStream; handler: Recorder; peer: Socket}> {
  const handler = new Recorder()
  const {promise, resolve} = withResolvers<ByteStream>()
  const listener = await Listener.open({kind: 'tcp', host: '127.0.0.1', port: 0}, fd => resolve(new ByteStream(fd, handler, 'the peer')))
  const peer = await dial(listener.address)
  const stream = await promise
  await listener.close()
  t.teardown(() => {
    stream.destroy()
    peer.destroy()
  })
  return {stream, handler, peer}
}

function withResolvers<T>(): {promise: Promise<T>; resolve: (value: T) => void} {
  let resolve!: (value: T) => void
  const promise = new Promise<T>(done => {
    resolve = done
  })
  return {promise, resolve}
}

/** Queues bytes of the pattern; through the arena, as replies are. */
function send(stream: ByteStream, length: number, position = 0): void {
  for (let done = 0; done < length; done += 100_000) {
    const bytes = Math.min(100_000, length - done)
    const {buffer} = stream.output.reserve(bytes)
    pattern.at(position + done, bytes).copy(buffer, stream.output.reservedAt)
    stream.output.commit(bytes)
  }
  stream.flushSoon()
}

t.test('what a handler leaves is shown again, with more', async t => {
  const {handler, peer} = open(t)
  const seen: number[] = []
  handler.input = stream => {
    seen.push(stream.available)
    if (stream.available >= 10) stream.start += 10
  }
  peer.write(pattern.at(0, 4))
  await until(() => seen.length === 1, 'the first bytes')
  peer.write(pattern.at(4, 4))
  await until(() => seen.length === 2, 'the next bytes')
  peer.write(pattern.at(8, 4))
  await until(() => seen.length === 3, 'the last bytes')
  peer.write(pattern.at(12, 1))
  await until(() => seen.length === 4, 'one more')
  t.same(seen, [4, 8, 12, 3])
})

t.test('a unit of the largest size is shown in one piece, wherever in the slab it began', async t => {
  const {handler, peer, stream} = open(t)
  let units = 0
  let wrong = 0
  let unit = MAX_UNIT_BYTES
  let position = 0
  handler.input = () => {
    while (stream.available >= unit) {
      if (pattern.mismatch(stream.input.subarray(stream.start, stream.start + unit), position) >= 0) wrong++
      stream.start += unit
      position += unit
      units++
      unit = units % 2 === 0 ? MAX_UNIT_BYTES : 77_777 + units
    }
  }
  const total = 20 * MAX_UNIT_BYTES
  for (let at = 0; at < total; at += 65_536) if (!peer.write(pattern.at(at, 65_536))) await once(peer, 'drain')
  await until(() => position + unit > total, 'everything')
  t.equal(wrong, 0)
  t.ok(units > 20)
})

t.test('output larger than the kernel takes is sent as the peer reads, and onDrain says when', async t => {
  const {stream, handler, peer} = open(t)
  const length = 30_000_000
  send(stream, length)
  await until(() => stream.output.bytes < length, 'the kernel is full')
  t.ok(stream.output.bytes > 0)
  t.equal(handler.drains, 0)
  let received = 0
  peer.on('data', (chunk: Buffer) => {
    if (pattern.mismatch(chunk, received) >= 0) t.fail(`wrong bytes after ${received}`)
    received += chunk.length
  })
  await until(() => received === length, 'everything has arrived')
  t.equal(handler.drains, 1)
  t.equal(stream.output.bytes, 0)
})

t.test('the peer hangs up', async t => {
  t.test('in order', async t => {
    const {handler, peer} = open(t)
    peer.end('the last words')
    await until(() => handler.closings.length > 0, 'the end')
    t.equal(`${handler.received}`, 'the last words')
    t.same(handler.closings, [undefined])
  })

  t.test('in the middle of a message', async t => {
    const {handler, peer} = open(t)
    handler.input = () => undefined
    peer.end('half a mess')
    await until(() => handler.closings.length > 0, 'the end')
    t.match(handler.closings, [{code: 'LH_UNREACHABLE', message: 'the peer: connection closed in the middle of a message'}])
  })

  t.test('while receiving is paused, having sent more', async t => {
    const {stream, handler, peer} = open(t)
    stream.pause()
    peer.end('unseen')
    await new Promise(resolve => setTimeout(resolve, 30))
    t.same(handler.closings, [], 'a half-closed peer may still want its replies')
    stream.resume()
    await until(() => handler.closings.length > 0, 'the end')
    t.equal(`${handler.received}`, 'unseen')
    t.same(handler.closings, [undefined])
  })

  t.test('altogether, while receiving is paused', async t => {
    const {stream, handler, peer} = open(t)
    stream.pause()
    peer.destroy()
    await until(() => handler.closings.length > 0, 'the end')
    t.match(handler.closings, [{code: 'LH_UNREACHABLE', message: 'the peer: connection lost'}])
  })

  for (const paused of [false, true]) {
    t.test(`by a reset, ${paused ? 'while receiving is paused' : 'while receiving'}`, async t => {
      const {stream, handler, peer} = await openTcp(t)
      if (paused) stream.pause()
      peer.resetAndDestroy()
      await until(() => handler.closings.length > 0, 'the end')
      t.match(handler.closings, [{code: 'LH_UNREACHABLE'}])
    })
  }

  t.test('by a reset, while output is queued', async t => {
    const before = slabs.inUse
    const {stream, handler, peer} = await openTcp(t)
    send(stream, 40_000_000)
    await until(() => stream.output.bytes < 40_000_000, 'the kernel is full')
    peer.resetAndDestroy()
    await until(() => handler.closings.length > 0, 'the end')
    t.match(handler.closings, [{code: 'LH_UNREACHABLE'}])
    await until(() => slabs.inUse <= before, 'every slab has been given back')
  })
})

t.test('input from before a pause is shown before more is received', async t => {
  // More input than may be left unhandled, and resumed from a promise: the loop then polls before immediates run.
  const {stream, handler, peer} = open(t)
  let position = 0
  let wrong = 0
  handler.input = () => {
    const length = Math.min(stream.available, 60_000)
    if (pattern.mismatch(stream.input.subarray(stream.start, stream.start + length), position) >= 0) wrong++
    stream.start += length
    position += length
    stream.pause()
    void import('node:fs/promises').then(async ({stat}) => {
      await stat('/')
      stream.resume()
    })
  }
  const total = 8_000_000
  for (let at = 0; at < total; at += 65_536) {
    if (!peer.write(pattern.at(at, Math.min(65_536, total - at)))) await once(peer, 'drain')
  }
  peer.end()
  await until(() => position === total && handler.closings.length > 0, 'everything')
  t.equal(wrong, 0)
  t.same(handler.closings, [undefined])
})

t.test('pause() in the middle of input leaves the rest for later', async t => {
  const {stream, handler, peer} = open(t)
  handler.input = () => {
    stream.start += 1
    stream.pause()
  }
  peer.write('abc')
  await until(() => stream.start === 1 && stream.paused, 'one byte')
  t.equal(stream.available, 2)
  stream.resume()
  stream.resume()
  t.equal(stream.available, 2, 'not during resume()')
  await until(() => stream.available === 1, 'the next byte')
  t.ok(stream.paused)
})

t.test('destroy()', async t => {
  t.test('twice: the first reason is told, once', async t => {
    const {stream, handler} = open(t)
    stream.destroy(new Error('first'))
    stream.destroy(new Error('second'))
    t.same(handler.closings.map(reason => reason?.message), ['first'])
    t.ok(stream.closed)
  })

  t.test('while a message is being handled, which then turns out to be wrong', async t => {
    const {stream, handler, peer} = open(t)
    handler.input = () => {
      stream.destroy(new Error('enough'))
      throw new LonghornError('PROTOCOL', 'nonsense')
    }
    peer.write('x')
    await until(() => handler.closings.length > 0, 'the end')
    await new Promise(resolve => setImmediate(resolve))
    t.same(handler.closings.map(reason => reason?.message), ['enough'])
  })

  t.test('with output that the peer does not read', async t => {
    const before = slabs.inUse
    const {stream, handler} = open(t)
    send(stream, 10_000_000)
    await until(() => stream.output.bytes < 10_000_000, 'the kernel is full')
    stream.destroy()
    t.same(handler.closings, [undefined])
    stream.flush()
    stream.resume()
    stream.flushSoon()
    stream.endAfterFlush()
    await until(() => slabs.inUse <= before, 'every slab has been given back')
  })

  t.test('in the turn in which its input was pushed on: the bytes still arrive', async t => {
    const source = open(t)
    const target = open(t)
    const taken = [slabs.take()]
    source.handler.input = stream => {
      target.stream.output.push(stream.slab, stream.start, stream.available)
      target.stream.flushSoon()
      stream.start = stream.end
      stream.destroy()
      // Somebody else wants memory in the same turn.
      for (let count = 0; count < 4; count++) taken.push(slabs.take())
      for (const slab of taken) slab.buffer.fill(0xff)
    }
    source.peer.write(pattern.at(5, 50_000))
    const received: Buffer[] = []
    target.peer.on('data', (chunk: Buffer) => received.push(chunk))
    await until(() => Buffer.concat(received).length === 50_000, 'the bytes')
    t.equal(pattern.mismatch(Buffer.concat(received), 5), -1)
    for (const slab of taken) slab.release()
  })
})

t.test('a handler that throws an error with a meaning ends its stream with it', async t => {
  const {handler, peer} = open(t)
  handler.input = () => {
    throw new LonghornError('PROTOCOL', 'nonsense')
  }
  peer.write('x')
  await until(() => handler.closings.length > 0, 'the end')
  t.match(handler.closings, [{code: 'LH_PROTOCOL', message: 'nonsense'}])
  t.equal((await receiveAll(peer)).length, 0)
})

t.test('endAfterFlush()', async t => {
  t.test('with nothing queued', async t => {
    const {stream, handler, peer} = open(t)
    stream.endAfterFlush()
    t.same(handler.closings, [undefined])
    t.equal((await receiveAll(peer)).length, 0)
  })

  for (const tcp of [false, true]) {
    t.test(`sends all that is queued, then closes (${tcp ? 'TCP' : 'unix'})`, async t => {
      const {stream, handler, peer} = tcp ? await openTcp(t) : open(t)
      send(stream, 12_345_678)
      stream.endAfterFlush()
      stream.endAfterFlush()
      // No reader yet: what comes in meanwhile is not looked at.
      peer.write('too late')
      await new Promise(resolve => setTimeout(resolve, 20))
      t.same(handler.closings, [])
      const received = await receiveAll(peer)
      t.equal(received.length, 12_345_678)
      t.equal(pattern.mismatch(received, 0), -1)
      t.same(handler.closings, [undefined])
      t.equal(handler.received.length, 0)
    })
  }

  t.test('while receiving is paused', async t => {
    const {stream, handler, peer} = open(t)
    stream.pause()
    send(stream, 3_000_000)
    stream.endAfterFlush()
    t.equal((await receiveAll(peer)).length, 3_000_000)
    t.same(handler.closings, [undefined])
  })

  t.test('gives a peer up that does not take what is queued', async t => {
    const before = slabs.inUse
    const {stream, handler} = open(t)
    send(stream, 12_000_000)
    const started = performance.now()
    stream.endAfterFlush()
    await until(() => handler.closings.length > 0, 'the end')
    t.match(handler.closings, [{code: 'LH_UNREACHABLE', message: 'the peer: did not take the last replies'}])
    t.ok(performance.now() - started >= 4900, 'it was given time')
    await until(() => slabs.inUse <= before, 'every slab has been given back')
  })
})

t.test('a descriptor that is closed and used again in one turn', async t => {
  // Both are readable in the same turn; whoever comes first replaces the other by a new stream with the same number.
  const first = open(t)
  const second = open(t)
  const replaced = new Recorder()
  let replacement: ByteStream | undefined
  let newPeer: Socket | undefined
  const replace = (victim: ByteStream) => (stream: ByteStream) => {
    stream.start = stream.end
    if (replacement !== undefined) return
    victim.destroy()
    const [near, far] = socketPair()
    t.equal(near, victim.fd, 'the number is used again')
    replacement = new ByteStream(near, replaced, 'the new peer')
    newPeer = nodeSocket(far)
  }
  first.handler.input = replace(second.stream)
  second.handler.input = replace(first.stream)
  first.peer.write('x')
  second.peer.write('y')
  await until(() => replacement !== undefined, 'the exchange')
  await new Promise(resolve => setImmediate(resolve))
  t.same(replaced.closings, [])
  t.equal(replaced.received.length, 0)
  newPeer!.write('for the new one')
  await until(() => replaced.received.length > 0, 'input')
  t.equal(`${replaced.received}`, 'for the new one')
  replacement!.destroy()
  newPeer!.destroy()
})

t.test('thousands of connections, one after the other: no descriptor and no slab is left over', async t => {
  const before = slabs.inUse
  const {readdirSync} = await import('node:fs')
  const fds = (): number => readdirSync('/proc/self/fd').length
  const count = fds()
  for (let round = 0; round < 2000; round++) {
    const [near, far] = socketPair()
    const stream = new ByteStream(near, new Recorder(), 'a peer')
    if (round % 3 === 0) send(stream, 1000)
    if (round % 5 === 0) shrinkBuffers(near)
    const other = new ByteStream(duplicateFd(far), new Recorder(), 'another')
    resetFd(far)
    stream.destroy()
    other.destroy()
    if (round % 100 === 0) await new Promise(resolve => setImmediate(resolve))
  }
  await until(() => slabs.inUse <= before, 'every slab has been given back')
  t.ok(fds() <= count + 1, `${fds()} descriptors, ${count} before`)
})
