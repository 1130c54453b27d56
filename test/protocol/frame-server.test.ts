import t, {type Test} from 'tap'
import {slabs} from '../../src/lib/net/slab.js'
import {ERRNO, OP} from '../../src/protocol/block-device.js'
import {FRAME} from '../../src/protocol/frame.js'
import {MAX_READ_BYTES} from '../../src/protocol/frame-requests.js'
import {FrameServerConnection} from '../../src/protocol/frame-server.js'
import {MemoryDevice} from '../engine/support/memory-device.js'
import {seededRandom} from '../replica/support/random.js'
import {encodeFrame, FramePeer, type Frame} from '../support/frames.js'
import {Pattern} from '../support/pattern.js'
import {nodeSocket, socketPair} from '../support/sockets.js'
import {until} from '../support/until.js'

const MIB = 1024 * 1024
const pattern = new Pattern()

interface Served {
  readonly device: MemoryDevice
  readonly connection: FrameServerConnection
  readonly peer: FramePeer
  /** With the reason, once it is closed. */
  readonly closings: (Error | undefined)[]
  ask(frame: Partial<Frame>): Promise<Frame>
}

interface ServeOptions {
  readonly sizeBytes?: number
  readonly noSpaceType?: typeof FRAME.ENOSPC | typeof FRAME.ERROR
}

function serve(t: Test, {sizeBytes = MIB, noSpaceType = FRAME.ENOSPC}: ServeOptions = {}): Served {
  const device = new MemoryDevice(sizeBytes)
  const [near, far] = socketPair()
  const closings: (Error | undefined)[] = []
  const connection = new FrameServerConnection(near, {
    device,
    noSpaceType,
    peer: 'initiator 1',
    onClose: (_closed, reason) => closings.push(reason),
  })
  const peer = new FramePeer(nodeSocket(far))
  t.teardown(() => {
    connection.close()
    peer.socket.destroy()
  })
  const ask = (frame: Partial<Frame>): Promise<Frame> => {
    peer.send(frame)
    return peer.next()
  }
  return {device, connection, peer, closings, ask}
}

/** Long enough for a turn of the reactor. */
function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(() => setImmediate(() => resolve())))
}

t.test('every request and its answer', async t => {
  const {ask, device} = serve(t)
  device.records = []
  const data = pattern.at(0, 5000)
  const empty = Buffer.alloc(0)
  const answered = {magic: 0x1b01, type: FRAME.RESPONSE}
  t.match(await ask({sequence: 1, type: FRAME.WRITE, offset: 777n, size: 5000, payload: data}), {
    ...answered,
    sequence: 1,
    offset: 777n,
    size: 5000,
    payload: empty,
  })
  t.same(device.bytes.subarray(777, 5777), data)
  t.match(await ask({sequence: 2, type: FRAME.READ, offset: 777n, size: 5000}), {...answered, sequence: 2, offset: 777n, size: 5000, payload: data})
  t.match(await ask({sequence: 3, type: FRAME.PING}), {...answered, sequence: 3, offset: 0n, size: 0, payload: empty})
  t.match(await ask({sequence: 4, type: FRAME.FLUSH}), {...answered, sequence: 4, size: 0, payload: empty})
  t.match(await ask({sequence: 0xffffffff, type: FRAME.UNMAP, offset: 4096n, size: 8192}), {
    ...answered,
    sequence: 0xffffffff,
    offset: 4096n,
    payload: empty,
  })
  t.match(await ask({sequence: 6, type: FRAME.WRITE_DURABLE, offset: 0n, size: 3, payload: Buffer.from('abc')}), {...answered, sequence: 6, size: 3})
  t.match(await ask({sequence: 7, type: FRAME.WRITE_ZEROES, offset: 0n, size: MIB}), {...answered, sequence: 7, size: MIB})
  t.match(await ask({sequence: 8, type: FRAME.WRITE_ZEROES_ALLOCATED, offset: 4096n, size: 4096}), {...answered, sequence: 8})
  const status = await ask({sequence: 9, type: FRAME.BLOCK_STATUS, offset: 0n, size: 16384})
  t.match(status, {...answered, sequence: 9})
  t.equal(status.payload.toString('hex'), ['0010000000000000', '0010000001000000', '0020000000000000'].join(''))
  const flags = {fua: false, noUnmap: false}
  t.match(device.records, [
    {op: OP.WRITE, offset: 777, length: 5000, ...flags},
    {op: OP.READ, offset: 777, length: 5000},
    {op: OP.FLUSH, offset: 0, length: 0},
    {op: OP.DISCARD, offset: 4096, length: 8192},
    {op: OP.WRITE, offset: 0, length: 3, fua: true},
    {op: OP.WRITE_ZEROES, offset: 0, length: MIB, ...flags},
    {op: OP.WRITE_ZEROES, offset: 4096, length: 4096, fua: false, noUnmap: true},
  ])
})

t.test('requests of no length are answered', async t => {
  const {ask} = serve(t)
  for (const type of [FRAME.READ, FRAME.WRITE, FRAME.WRITE_DURABLE, FRAME.UNMAP, FRAME.WRITE_ZEROES]) {
    for (const offset of [0n, BigInt(MIB)]) {
      const answer = await ask({sequence: 5, type, offset, size: 0})
      t.match(answer, {type: FRAME.RESPONSE, sequence: 5, size: 0}, `type ${type} at ${offset}`)
      t.equal(answer.payload.length, 0)
    }
  }
})

t.test('of a WRITE only the payload counts', async t => {
  const {ask, device} = serve(t)
  device.bytes.fill(9)
  t.match(await ask({type: FRAME.WRITE, offset: 0n, size: 8192, payload: Buffer.alloc(4096, 1)}), {type: FRAME.RESPONSE, size: 4096})
  t.equal(device.bytes[4095], 1)
  t.equal(device.bytes[4096], 9)
})

t.test('a WRITE_ATOMIC reaches the device in one piece, and not at all when it is longer than one', async t => {
  const {ask, peer, device} = serve(t)
  const data = Buffer.alloc(131_072, 5)
  t.match(await ask({sequence: 1, type: FRAME.WRITE_ATOMIC, offset: 4096n, size: data.length, payload: data}), {sequence: 1, type: FRAME.RESPONSE, size: data.length})
  t.ok(device.bytes.subarray(4096, 4096 + data.length).equals(data))
  t.match(await ask({sequence: 2, type: FRAME.WRITE_ATOMIC, offset: 0n, size: data.length + 1, payload: Buffer.alloc(data.length + 1, 6)}), {sequence: 2, type: FRAME.ERROR})
  t.equal(device.bytes.indexOf(6), -1)
  peer.send({sequence: 3, type: FRAME.PING})
  t.match(await peer.next(), {sequence: 3, type: FRAME.RESPONSE})
})

t.test('a REPAIR reaches the device in one piece, and its answer says what was left', async t => {
  const {ask, device} = serve(t)
  device.frozenBlocks.add(2)
  const data = Buffer.alloc(131_072, 5)
  t.match(await ask({sequence: 1, type: FRAME.REPAIR, offset: 4096n, size: data.length, payload: data}), {sequence: 1, type: FRAME.RESPONSE, size: data.length, payload: Buffer.from('00100000', 'hex')})
  t.ok(device.bytes.subarray(3 * 4096, 4096 + data.length).equals(data.subarray(2 * 4096)))
  t.match(await ask({sequence: 2, type: FRAME.REPAIR, offset: 0n, size: data.length + 1, payload: Buffer.alloc(data.length + 1, 6)}), {sequence: 2, type: FRAME.ERROR})
  t.match(await ask({sequence: 3, type: FRAME.REPAIR, offset: BigInt(MIB), payload: Buffer.alloc(1, 6)}), {sequence: 3, type: FRAME.ERROR})
  device.repairFault = new Error('broken')
  t.match(await ask({sequence: 4, type: FRAME.REPAIR, offset: 0n, payload: Buffer.alloc(4096, 6)}), {sequence: 4, type: FRAME.ERROR})
  t.equal(device.bytes.indexOf(6), -1)
})

t.test('a payload behind a request that has none is skipped', async t => {
  const {ask, device} = serve(t)
  for (const type of [FRAME.READ, FRAME.PING, FRAME.UNMAP, FRAME.FLUSH, FRAME.WRITE_ZEROES, FRAME.BLOCK_STATUS]) {
    const payload = encodeFrame({type: FRAME.WRITE, offset: 0n, size: 4, payload: Buffer.from('evil')})
    t.match(await ask({sequence: type, type, offset: 0n, size: 4096, payload}), {sequence: type, type: FRAME.RESPONSE})
  }
  t.equal(device.bytes.indexOf('evil'), -1)
})

t.test('a type that is no request gets no answer, and the next request does', async t => {
  const {peer, ask} = serve(t)
  for (const type of [FRAME.RESPONSE, FRAME.ERROR, FRAME.EOF, FRAME.CLOSE, FRAME.ENOSPC, 9, 255, 0x106, 0xffffffff]) {
    peer.send({sequence: 1, type, payload: Buffer.alloc(100_000)})
    t.match(await ask({sequence: 2, type: FRAME.PING}), {sequence: 2}, `type ${type}`)
  }
})

t.test('outside of the volume', async t => {
  const {ask, device} = serve(t)
  device.records = []
  const ranges: [offset: bigint, size: number][] = [
    [BigInt(MIB), 1],
    [BigInt(MIB) - 1n, 2],
    [-1n, 1],
    [-4096n, 8192],
    [2n ** 53n, 1],
    [2n ** 63n - 1n, 1],
    [0n, 0xffffffff],
  ]
  for (const type of [FRAME.READ, FRAME.UNMAP, FRAME.WRITE_ZEROES, FRAME.BLOCK_STATUS]) {
    for (const [offset, size] of ranges) {
      const answer = await ask({sequence: 3, type, offset, size})
      t.match(answer, {sequence: 3, type: FRAME.ERROR, size: answer.payload.length}, `type ${type}, ${size} bytes at ${offset}`)
      t.match(`${answer.payload}`, /^EOF:/)
    }
  }
  for (const [offset] of ranges.slice(0, -1)) {
    const answer = await ask({type: FRAME.WRITE, offset, payload: Buffer.alloc(4096)})
    t.match(answer, {type: FRAME.ERROR}, `4096 bytes at ${offset}`)
  }
  t.match(await ask({type: FRAME.PING}), {type: FRAME.RESPONSE}, 'the payloads were skipped')
  t.same(device.records, [])
  t.match(await ask({type: FRAME.BLOCK_STATUS, offset: 0n, size: 0}), {type: FRAME.ERROR})
})

t.test('errors of the device', async t => {
  for (const [noSpaceType, name] of [[FRAME.ENOSPC, 'towards an initiator'], [FRAME.ERROR, 'towards an engine']] as const) {
    t.test(name, async t => {
      const {ask, device} = serve(t, {noSpaceType})
      const cases: [errno: number, type: number, text: RegExp][] = [
        [ERRNO.EIO, FRAME.ERROR, /^input\/output error$/],
        [ERRNO.ENOSPC, noSpaceType, /no space left on device/],
        [ERRNO.EINVAL, FRAME.ERROR, /^EOF:/],
        [ERRNO.ESHUTDOWN, FRAME.ERROR, /^replica no longer exist$/],
      ]
      for (const [errno, type, text] of cases) {
        device.fault = () => errno
        for (const request of [FRAME.READ, FRAME.WRITE, FRAME.UNMAP, FRAME.FLUSH, FRAME.WRITE_ZEROES]) {
          const answer = await ask({sequence: 4, type: request, size: 4096, payload: Buffer.alloc(request === FRAME.WRITE ? 4096 : 0)})
          t.match(answer, {sequence: 4, type, size: answer.payload.length})
          t.match(`${answer.payload}`, text)
        }
      }
      device.fault = () => ERRNO.OK
      t.match(await ask({type: FRAME.READ, size: 10}), {type: FRAME.RESPONSE}, 'errors leave nothing behind')
    })
  }
})

t.test('one bad piece of a large request is an error of the whole, once', async t => {
  const {ask, device, peer} = serve(t, {sizeBytes: 4 * MIB})
  for (const bad of [0, MIB, 4 * MIB - 1]) {
    device.fault = io => (io.offset <= bad && bad < io.offset + io.length ? ERRNO.EIO : ERRNO.OK)
    for (const mode of ['now', 'later'] as const) {
      device.mode = mode
      t.match(await ask({sequence: 6, type: FRAME.READ, size: 4 * MIB}), {sequence: 6, type: FRAME.ERROR})
      t.match(await ask({sequence: 7, type: FRAME.WRITE, size: 4 * MIB, payload: Buffer.alloc(4 * MIB)}), {sequence: 7, type: FRAME.ERROR})
    }
  }
  device.fault = () => ERRNO.OK
  t.match(await ask({sequence: 8, type: FRAME.READ, size: 4 * MIB}), {sequence: 8, type: FRAME.RESPONSE})
  t.equal(peer.waiting, 0)
})

t.test('large requests, aligned and not', async t => {
  const random = seededRandom(t)
  const size = 40 * MIB
  const {ask, device} = serve(t, {sizeBytes: size})
  for (let round = 0; round < 12; round++) {
    device.mode = random.oneIn(2) ? 'now' : 'later'
    device.records = []
    const length = round === 0 ? MAX_READ_BYTES : 128 * 1024 - 1 + random.below(4 * MIB)
    const offset = random.below(size - length)
    const payload = Buffer.alloc(length)
    random.fill(payload)
    t.match(await ask({sequence: round, type: FRAME.WRITE, offset: BigInt(offset), size: length, payload}), {sequence: round, type: FRAME.RESPONSE, size: length})
    t.ok(device.bytes.subarray(offset, offset + length).equals(payload), 'written')
    const pieces = device.records
    t.ok(pieces.every(piece => piece.length <= 128 * 1024))
    t.ok(pieces.slice(0, -1).every(piece => (piece.offset + piece.length) % 4096 === 0), 'no block is written in two halves')
    const answer = await ask({sequence: round, type: FRAME.READ, offset: BigInt(offset), size: length})
    t.match(answer, {type: FRAME.RESPONSE, size: length})
    t.ok(answer.payload.equals(payload), 'read')
  }
  t.match(await ask({type: FRAME.READ, size: MAX_READ_BYTES + 1}), {type: FRAME.ERROR})
})

t.test('a write is passed on while the rest of it is still being sent', async t => {
  const {peer, device} = serve(t, {sizeBytes: 8 * MIB})
  const bytes = encodeFrame({type: FRAME.WRITE, size: 8 * MIB, payload: Buffer.alloc(8 * MIB, 5)})
  peer.socket.write(bytes.subarray(0, 3 * MIB))
  await until(() => device.bytes[2 * MIB] === 5, 'the first part is written')
  t.equal(peer.waiting, 0)
  peer.socket.write(bytes.subarray(3 * MIB))
  t.match(await peer.next(), {type: FRAME.RESPONSE, size: 8 * MIB})
})

t.test('answers come as the device has them, in any order', async t => {
  const {peer, device} = serve(t)
  pattern.at(0, MIB).copy(device.bytes)
  device.mode = 'held'
  for (let sequence = 0; sequence < 50; sequence++) peer.send({sequence, type: FRAME.READ, offset: BigInt(sequence * 5000), size: 5000})
  await until(() => device.held === 50, 'all are in flight')
  device.release(all => [...all].reverse())
  for (let sequence = 49; sequence >= 0; sequence--) {
    const answer = await peer.next()
    t.equal(answer.sequence, sequence)
    t.equal(pattern.mismatch(answer.payload, sequence * 5000), -1)
  }
})

/** A write, a read of it, a ping, a discard, a flush, and a read of what is left. */
function conversation(): {requests: Buffer; answers: Buffer} {
  const data = Buffer.from('between the lines')
  const requests = [
    {sequence: 1, type: FRAME.WRITE, offset: 4090n, size: data.length, payload: data},
    {sequence: 2, type: FRAME.READ, offset: 4090n, size: data.length},
    {sequence: 3, type: FRAME.PING},
    {sequence: 4, type: FRAME.UNMAP, offset: 0n, size: 8192, payload: Buffer.from('skipped')},
    {sequence: 5, type: FRAME.FLUSH},
    {sequence: 6, type: FRAME.READ, offset: 4090n, size: 4},
  ]
  const answers = [
    {sequence: 1, type: FRAME.RESPONSE, offset: 4090n, size: data.length},
    {sequence: 2, type: FRAME.RESPONSE, offset: 4090n, size: data.length, payload: data},
    {sequence: 3, type: FRAME.RESPONSE},
    {sequence: 4, type: FRAME.RESPONSE},
    {sequence: 5, type: FRAME.RESPONSE},
    {sequence: 6, type: FRAME.RESPONSE, offset: 4090n, size: 4, payload: Buffer.alloc(4)},
  ]
  return {requests: Buffer.concat(requests.map(encodeFrame)), answers: Buffer.concat(answers.map(encodeFrame))}
}

t.test('it does not matter where the bytes are cut', async t => {
  const {requests, answers} = conversation()
  const cuts = [...Array.from({length: requests.length - 1}, (_, index) => [index + 1]), Array.from({length: requests.length}, (_, index) => index)]
  for (const cut of cuts) {
    const {peer, connection} = serve(t)
    const received: Buffer[] = []
    peer.socket.on('data', (chunk: Buffer) => received.push(chunk))
    let sent = 0
    for (const at of [...cut, requests.length]) {
      peer.socket.write(requests.subarray(sent, at))
      sent = at
      await turn()
    }
    await until(() => Buffer.concat(received).length >= answers.length, `answers to requests cut at ${cut.length > 1 ? 'each byte' : cut[0]}`)
    t.same(Buffer.concat(received), answers)
    connection.close()
  }
})

t.test('what is not a frame ends the connection', async t => {
  for (let bit = 0; bit < 16; bit++) {
    const {peer, closings, ask} = serve(t)
    await ask({type: FRAME.PING})
    peer.send({magic: 0x1b01 ^ (1 << bit), type: FRAME.PING})
    await peer.end()
    t.match(closings, [{code: 'LH_PROTOCOL', message: 'initiator 1: sent something that is not a frame'}])
  }
})

t.test('the peer goes', async t => {
  t.test('between requests', async t => {
    const {peer, closings} = serve(t)
    peer.socket.end()
    await peer.end()
    t.same(closings, [undefined])
  })

  for (const bytes of [1, 25, 26, 1000]) {
    t.test(`${bytes} bytes into a write`, async t => {
      const {peer, closings, device} = serve(t)
      device.records = []
      peer.socket.end(encodeFrame({type: FRAME.WRITE, payload: Buffer.alloc(2000)}).subarray(0, bytes))
      await until(() => closings.length > 0, 'it is noticed')
      t.match(closings, bytes === 26 ? [undefined] : [{code: 'LH_UNREACHABLE'}])
      t.same(device.records, [], 'nothing is written')
    })
  }

  t.test('with requests in flight, which the device finishes later', async t => {
    const before = slabs.inUse
    const {peer, closings, device, connection} = serve(t, {sizeBytes: 8 * MIB})
    device.mode = 'held'
    for (let sequence = 0; sequence < 20; sequence++) {
      peer.send({sequence, type: FRAME.WRITE, payload: Buffer.alloc(300_000, 1)})
      peer.send({sequence, type: FRAME.READ, size: 9000})
      peer.send({sequence, type: FRAME.BLOCK_STATUS, size: 4096})
      peer.send({sequence, type: FRAME.FLUSH})
    }
    await until(() => device.held > 80, 'requests are in flight')
    peer.socket.destroy()
    await until(() => closings.length > 0, 'it is noticed')
    device.release()
    await turn()
    t.equal(device.inFlight, 0)
    t.ok(connection.requestsInFlight <= 1, 'all but a write that has only begun')
    t.ok(slabs.inUse <= before + 1, `${slabs.inUse - before} slabs left`)
  })
})

t.test('close(), twice', async t => {
  const {peer, closings, connection} = serve(t)
  connection.close(new Error('first'))
  connection.close(new Error('second'))
  await peer.end()
  t.same(closings.map(reason => reason?.message), ['first'])
})

t.test('stopReading() answers what is in flight and takes nothing new', async t => {
  const {peer, device, connection} = serve(t)
  device.mode = 'held'
  for (let sequence = 0; sequence < 5; sequence++) peer.send({sequence, type: FRAME.READ, size: 100})
  // Half of a write: it cannot be finished any more, and nobody should wait for it.
  peer.socket.write(encodeFrame({sequence: 99, type: FRAME.WRITE, payload: Buffer.alloc(200_000)}).subarray(0, 150_000))
  await until(() => device.held > 5, 'all are in flight')
  connection.stopReading()
  peer.send({sequence: 100, type: FRAME.PING})
  await turn()
  t.ok(connection.requestsInFlight > 0)
  device.release()
  await turn()
  t.equal(connection.requestsInFlight, 0)
  for (let sequence = 0; sequence < 5; sequence++) t.equal((await peer.next()).sequence, sequence)
  await turn()
  t.equal(peer.waiting, 0)
})

t.test('bounds', async t => {
  t.test('a device that stands still gets no more than 32 MiB and 1024 requests', async t => {
    const {peer, device} = serve(t, {sizeBytes: 128 * MIB})
    const before = slabs.inUse
    device.mode = 'held'
    const write = encodeFrame({type: FRAME.WRITE, payload: Buffer.alloc(MIB)})
    let sent = 0
    const sender = (async () => {
      for (; sent < 100 && !peer.ended; sent++) if (!peer.socket.write(write)) await new Promise(resolve => peer.socket.once('drain', resolve))
    })()
    await until(() => device.held >= 256, 'it is full')
    for (let count = 0; count < 20; count++) await turn()
    t.ok(device.mostBytesInFlight <= 32 * MIB + 128 * 1024, `${device.mostBytesInFlight} bytes`)
    t.ok(sent < 50)
    t.ok(slabs.inUse - before < 100, `${slabs.inUse - before} slabs`)
    device.mode = 'later'
    device.release()
    await sender
    for (let count = 0; count < 100; count++) t.match(await peer.next(), {type: FRAME.RESPONSE, size: MIB})
  })

  t.test('small requests', async t => {
    const {peer, device} = serve(t)
    device.mode = 'held'
    const requests = Buffer.concat(Array.from({length: 5000}, (_, sequence) => encodeFrame({sequence, type: FRAME.READ, size: 512})))
    peer.socket.write(requests)
    await until(() => device.held >= 1024, 'it is full')
    for (let count = 0; count < 20; count++) await turn()
    t.equal(device.held, 1024)
    device.mode = 'now'
    device.release()
    for (let sequence = 0; sequence < 5000; sequence++) t.equal((await peer.next()).sequence, sequence)
  })

  for (const size of [4096, 100_000, MIB, 32 * MIB]) {
    t.test(`an initiator that asks for ${size} bytes again and again, and reads nothing`, async t => {
      const {peer, connection} = serve(t, {sizeBytes: 32 * MIB})
      const before = slabs.inUse
      const memory = process.memoryUsage()
      peer.socket.pause()
      const request = encodeFrame({type: FRAME.READ, size})
      const wanted = 40_000
      for (let sent = 0; sent < wanted && !peer.socket.writableNeedDrain; sent += 100) {
        peer.socket.write(Buffer.concat(Array.from({length: 100}, () => request)))
        await turn()
      }
      await until(() => connection.stream.paused, 'it is not read from any more')
      await turn()
      const unsent = connection.stream.output.bytes
      t.ok(unsent > 0 && unsent < 36 * MIB + 1024 * 1024 * 4, `${unsent} bytes unsent`)
      t.ok(slabs.inUse - before < 100, `${slabs.inUse - before} slabs`)
      const grown = process.memoryUsage().rss - memory.rss
      t.ok(grown < 300 * MIB, `${Math.round(grown / MIB)} MiB more memory`)
    })
  }
})
