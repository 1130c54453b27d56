import t from 'tap'
import {ERRNO, MAX_IO_BYTES, OP} from '../../src/protocol/block-device.js'
import {ALL_FEATURES, FRAME} from '../../src/protocol/frame.js'
import {FrameServerConnection} from '../../src/protocol/frame-server.js'
import {slabs} from '../../src/lib/net/slab.js'
import {isLocalHost} from '../../src/engine/replica-link.js'
import {seededRandom} from '../replica/support/random.js'
import {encodeFrame, FramePeer} from '../support/frames.js'
import {Pattern} from '../support/pattern.js'
import {read, submit, submitWrite, write} from '../support/request.js'
import {nodeSocket, socketPair} from '../support/sockets.js'
import {until} from '../support/until.js'
import {addFake, addHandMade, emptyVolume, fakeVolume} from './support/fake-replicas.js'
import type {IoRecord, MemoryDevice} from './support/memory-device.js'

const MIB = 1024 * 1024
const pattern = new Pattern()

function ops(device: MemoryDevice): number[] {
  return device.records?.map((record: IoRecord) => record.op) ?? []
}

t.test('a write reaches all replicas, a read asks one', async t => {
  const {volume, replicas} = fakeVolume(t, {replicas: 3})
  for (const {device} of replicas) device.records = []
  t.match(await write(volume, 777, pattern.at(0, 5000)), {error: 0})
  for (const {device} of replicas) t.equal(pattern.mismatch(device.bytes.subarray(777, 5777), 0), -1)
  t.same(await read(volume, 777, 5000), pattern.at(0, 5000))
  t.same(replicas.flatMap(({device}) => ops(device)).sort(), [OP.READ, OP.WRITE, OP.WRITE, OP.WRITE])
})

t.test('a flush reaches all replicas', async t => {
  const {volume, replicas} = fakeVolume(t, {replicas: 3})
  t.match(await submit(volume, OP.FLUSH).answered, {error: 0})
  t.same(replicas.map(({device}) => device.flushes), [1, 1, 1])
})

t.test('what every replica can do is asked of it', async t => {
  t.test('FUA', async t => {
    const {volume, replicas} = fakeVolume(t, {replicas: 2})
    for (const {device} of replicas) device.records = []
    await write(volume, 0, Buffer.alloc(512), {fua: true})
    await write(volume, 0, Buffer.alloc(512))
    for (const {device} of replicas) t.match(device.records, [{op: OP.WRITE, fua: true}, {op: OP.WRITE, fua: false}])
  })

  t.test('write-through', async t => {
    const {volume, replicas} = fakeVolume(t, {replicas: 2, writeThrough: true})
    for (const {device} of replicas) device.records = []
    await write(volume, 0, Buffer.alloc(512))
    await submit(volume, OP.WRITE_ZEROES, 0, 4096).answered
    await submit(volume, OP.DISCARD, 4096, 4096).answered
    for (const {device} of replicas) {
      t.same(ops(device), [OP.WRITE, OP.WRITE_ZEROES, OP.FLUSH, OP.DISCARD, OP.FLUSH])
      t.ok(device.records![0]!.fua)
    }
  })

  t.test('discards and zeros', async t => {
    const {volume, replicas} = fakeVolume(t, {replicas: 2})
    await write(volume, 0, pattern.at(0, 100_000))
    for (const {device} of replicas) device.records = []
    t.match(await submit(volume, OP.DISCARD, 4096, 4096).answered, {error: 0})
    t.match(await submit(volume, OP.WRITE_ZEROES, 10_000, 20_000, {noUnmap: true}).answered, {error: 0})
    t.match(await submit(volume, OP.WRITE_ZEROES, 50_000, 1, {fua: true}).answered, {error: 0})
    t.match(await submit(volume, OP.DISCARD, 0, 0).answered, {error: 0})
    for (const {device} of replicas) {
      t.match(device.records, [
        {op: OP.DISCARD, offset: 4096, length: 4096},
        {op: OP.WRITE_ZEROES, offset: 10_000, length: 20_000, noUnmap: true},
        {op: OP.WRITE_ZEROES, offset: 50_000, length: 1, noUnmap: false},
        {op: OP.FLUSH},
      ])
    }
  })

  t.test('replicas of upstream can do nothing but read, write and discard', async t => {
    const {volume, replicas} = fakeVolume(t, {replicas: 2, features: [[], ALL_FEATURES]})
    for (const {device} of replicas) device.records = []
    await write(volume, 0, pattern.at(0, 300_000 % MAX_IO_BYTES), {fua: true})
    t.match(await submit(volume, OP.FLUSH).answered, {error: 0})
    t.same(ops(replicas[0]!.device), [OP.WRITE])
    t.same(ops(replicas[1]!.device), [OP.WRITE, OP.FLUSH])
    t.same(await volume.blockStatus(0, 4096), [{offset: 0, length: 4096, allocated: true}])

    const upstream = fakeVolume(t, {replicas: 1, features: [[]]})
    t.match(await submit(upstream.volume, OP.FLUSH).answered, {error: 0})
    t.same(await upstream.volume.blockStatus(5, MIB - 5), [{offset: 5, length: MIB - 5, allocated: true}])
  })
})

t.test('zeros written by hand, where a replica has no other way', async t => {
  for (const [offset, length] of [
    [0, MIB],
    [1, MIB - 2],
    [4095, 2],
    [100_000, 4096],
    [MAX_IO_BYTES - 1, MAX_IO_BYTES + 2],
    [777, 0],
  ] as const) {
    const {volume, replicas} = fakeVolume(t, {replicas: 2, features: [[], ['flush']]})
    for (const {device} of replicas) device.bytes.fill(9)
    for (const {device} of replicas) device.records = []
    t.match(await submit(volume, OP.WRITE_ZEROES, offset, length, {fua: true}).answered, {error: 0}, `${length} bytes at ${offset}`)
    const expected = Buffer.alloc(MIB, 9).fill(0, offset, offset + length)
    for (const {device} of replicas) t.ok(device.bytes.equals(expected))
    const pieces = replicas[0]!.device.records!
    t.ok(pieces.every(({op, length}) => op === OP.WRITE && length <= MAX_IO_BYTES))
    t.ok(pieces.slice(0, -1).every(piece => (piece.offset + piece.length) % 4096 === 0), 'no block is written in two halves')
    t.equal(replicas[1]!.device.flushes, length === 0 ? 0 : 1)
    await volume.drained()
  }

  t.test('an error in the middle ends it', async t => {
    const {volume, replicas} = fakeVolume(t, {replicas: 1, features: [[]]})
    const {device} = replicas[0]!
    device.fault = io => (io.offset >= 500_000 ? ERRNO.ENOSPC : 0)
    device.records = []
    t.match(await submit(volume, OP.WRITE_ZEROES, 0, MIB).answered, {error: ERRNO.ENOSPC})
    t.ok(device.records.length < 6)
  })
})

t.test('outside of the volume', async t => {
  const {volume, replicas} = fakeVolume(t)
  for (const {device} of replicas) device.records = []
  for (const op of [OP.READ, OP.DISCARD, OP.WRITE_ZEROES]) {
    for (const [offset, length] of [[MIB, 1], [MIB - 1, 2], [-1, 1], [0, MIB + 1]] as const) {
      t.match(await submit(volume, op, offset, length).answered, {error: ERRNO.EINVAL})
    }
  }
  t.match(await write(volume, MIB - 1, Buffer.alloc(2)), {error: ERRNO.EINVAL})
  for (const {device} of replicas) t.same(device.records, [])
  await volume.drained()
})

t.test('many requests of all sizes at once, finished in any order: replicas end the same, and reads see what was written', async t => {
  const random = seededRandom(t)
  const size = 8 * MIB
  const {volume, replicas} = fakeVolume(t, {replicas: 3, sizeBytes: size})
  const expected = Buffer.alloc(size)
  const before = slabs.inUse
  for (let round = 0; round < 40; round++) {
    for (const {device} of replicas) device.mode = random.oneIn(3) ? 'now' : random.oneIn(2) ? 'later' : 'held'
    // No two of a round overlap: requests in flight are unordered.
    const running: Promise<void>[] = []
    for (let at = 0; at < size - MAX_IO_BYTES; ) {
      const offset = at
      const length = 1 + random.below(random.oneIn(2) ? MAX_IO_BYTES : 9000)
      at += length + random.below(50_000)
      if (random.oneIn(2)) {
        const data = Buffer.from(pattern.at(random.below(MIB), length))
        data.copy(expected, offset)
        running.push(submitWrite(volume, offset, data).answered.then(({error}) => t.equal(error, 0)).then(() => undefined))
      } else {
        const wanted = Buffer.from(expected.subarray(offset, offset + length))
        running.push(read(volume, offset, length).then(data => void t.ok(data.equals(wanted), `${length} bytes at ${offset}`)))
      }
      if (random.oneIn(8)) await new Promise(resolve => setImmediate(resolve))
    }
    const all = Promise.all(running)
    let done = false
    void all.finally(() => (done = true))
    while (!done) {
      for (const {device} of replicas) device.release(held => [...held].sort(() => random.below(3) - 1), 1 + random.below(20))
      await new Promise(resolve => setImmediate(resolve))
    }
    await all
  }
  for (const {device} of replicas) t.ok(device.bytes.equals(expected))
  await volume.drained()
  t.ok(slabs.inUse <= before + 20)
})

t.test('overlapping writes end the same on all replicas', async t => {
  const random = seededRandom(t)
  const {volume, replicas} = fakeVolume(t, {replicas: 3})
  for (let round = 0; round < 20; round++) {
    const writes = Array.from({length: 40}, () => {
      const data = Buffer.alloc(1 + random.below(MAX_IO_BYTES), random.below(256))
      return submitWrite(volume, random.below(MIB - MAX_IO_BYTES), data).answered
    })
    await Promise.all(writes)
    const [first, ...rest] = replicas
    for (const {device} of rest) t.ok(device.bytes.equals(first!.device.bytes))
  }
})

t.test('reads', async t => {
  t.test('go where there is least to do', async t => {
    const {volume, replicas} = fakeVolume(t, {replicas: 2})
    for (const {device} of replicas) {
      device.mode = 'held'
      device.records = []
    }
    for (let index = 0; index < 40; index++) submit(volume, OP.READ, 0, 4096)
    await until(() => replicas.every(({device}) => device.held === 20), 'they are shared out')
    for (const {device} of replicas) device.release()
    await volume.drained()
  })

  t.test('prefer a local replica, unless it is much busier', async t => {
    const {volume, replicas} = fakeVolume(t, {replicas: 2, hosts: ['192.0.2.7', '127.0.0.1']})
    const [remote, local] = replicas
    for (const {device} of replicas) device.mode = 'held'
    for (let index = 0; index < 10; index++) submit(volume, OP.READ, 0, MAX_IO_BYTES)
    await until(() => remote!.device.held + local!.device.held === 10, 'all are in flight')
    t.ok(local!.device.held >= 7, `${local!.device.held} of 10`)
    t.ok(remote!.device.held >= 1)
    for (const {device} of replicas) device.release()
    await volume.drained()
  })

  t.test('local is what this machine has as an address', async t => {
    for (const host of ['', 'localhost', '127.0.0.1', '127.1.2.3', '::1']) t.ok(isLocalHost(host), host)
    for (const host of ['192.0.2.1', 'example.com', '2001:db8::1', '10.255.255.254']) t.notOk(isLocalHost(host), host)
  })
})

t.test('block status', async t => {
  t.test('as a replica knows it', async t => {
    const {volume} = fakeVolume(t)
    await write(volume, 8192, Buffer.alloc(4096))
    t.same(await volume.blockStatus(0, MIB), [
      {offset: 0, length: 8192, allocated: false},
      {offset: 8192, length: 4096, allocated: true},
      {offset: 12_288, length: MIB - 12_288, allocated: false},
    ])
    t.same(await volume.blockStatus(10_000, 1), [{offset: 10_000, length: 1, allocated: true}])
  })

  t.test('answers that make no sense', async t => {
    const extent = (length: number, flags = 0): Buffer => {
      const bytes = Buffer.alloc(8)
      bytes.writeUInt32LE(length, 0)
      bytes.writeUInt32LE(flags, 4)
      return bytes
    }
    const wrong = [Buffer.alloc(0), Buffer.alloc(7), extent(0), extent(8193), Buffer.concat([extent(8192), extent(1)]), Buffer.alloc(8 * 4097, 1)]
    const {volume} = emptyVolume(t)
    const {peer} = addHandMade(t, volume)
    for (const payload of wrong) {
      const asking = volume.blockStatus(0, 8192)
      const asked = await peer.next()
      t.match(asked, {type: FRAME.BLOCK_STATUS, offset: 0n, size: 8192})
      peer.send({sequence: asked.sequence, type: FRAME.RESPONSE, size: payload.length, payload})
      await t.rejects(asking, {code: 'LH_PROTOCOL'})
    }
    const asking = volume.blockStatus(0, 8192)
    peer.send({sequence: (await peer.next()).sequence, type: FRAME.RESPONSE, payload: extent(4096, 0xff)})
    t.same(await asking, [{offset: 0, length: 4096, allocated: true}], 'less than was asked is right')
    const refused = volume.blockStatus(0, 8192)
    peer.send({sequence: (await peer.next()).sequence, type: FRAME.ERROR, payload: Buffer.from('no')})
    await t.rejects(refused, {code: 'LH_IO'})
    const lost = volume.blockStatus(0, 8192)
    await peer.next()
    peer.socket.destroy()
    await t.rejects(lost, {code: 'LH_IO'})
  })
})

t.test('close()', async t => {
  t.test('with requests in flight: each fails, once', async t => {
    const {volume, replicas, dropped} = fakeVolume(t)
    for (const {device} of replicas) device.mode = 'held'
    const ios = [
      submit(volume, OP.READ, 0, 4096),
      submitWrite(volume, 0, Buffer.alloc(4096)),
      submit(volume, OP.FLUSH),
      submit(volume, OP.DISCARD, 0, 4096),
      submit(volume, OP.WRITE_ZEROES, 0, 4096, {fua: true}),
    ]
    const status = volume.blockStatus(0, 4096).then(
      () => 'known',
      () => 'failed',
    )
    await until(() => replicas.every(({device}) => device.held >= 4), 'all are in flight')
    const drained = volume.drained()
    volume.close()
    volume.close()
    for (const io of ios) t.match(await io.answered, {error: ERRNO.EIO})
    await drained
    t.match(await status, /known|failed/)
    t.same(dropped, [], 'no replica has failed')
    for (const {device} of replicas) device.release()
    t.same(ios.map(io => io.answers), [1, 1, 1, 1, 1])
  })

  t.test('afterwards every request fails', async t => {
    const {volume} = fakeVolume(t)
    volume.close()
    t.match(await submit(volume, OP.READ, 0, 1).answered, {error: ERRNO.EIO})
    t.match(await write(volume, 0, Buffer.alloc(1)), {error: ERRNO.EIO})
    t.match(await submit(volume, OP.FLUSH).answered, {error: ERRNO.EIO})
    t.match(await submit(volume, OP.WRITE_ZEROES, 0, 1).answered, {error: ERRNO.EIO})
    await volume.drained()
  })
})

t.test('a volume has at most 30 replicas, each with a bit of its own', async t => {
  const {volume} = emptyVolume(t)
  for (let count = 0; count < 30; count++) addFake(t, volume, 4096)
  t.equal(new Set(volume.replicas.map(link => link.bit)).size, 30)
  t.ok(volume.replicas.every(link => link.bit > 0))
  t.throws(() => volume.nextBit(), {code: 'LH_USAGE'})
})

t.test('an initiator that reads nothing holds its own data, and not that of others', async t => {
  const {volume} = fakeVolume(t, {replicas: 1})
  const initiator = (): {connection: FrameServerConnection; peer: FramePeer} => {
    const [near, far] = socketPair()
    const connection = new FrameServerConnection(near, {device: volume, noSpaceType: FRAME.ENOSPC, peer: 'initiator', onClose: () => undefined})
    const peer = new FramePeer(nodeSocket(far))
    t.teardown(() => {
      connection.close()
      peer.socket.destroy()
    })
    return {connection, peer}
  }
  const slow = initiator()
  const fast = initiator()
  slow.peer.socket.pause()
  const before = slabs.inUse
  let most = 0
  // Small answers for the one lie between large ones for the other, in the same slabs.
  for (let round = 0; round < 2000; round++) {
    slow.peer.send({sequence: round, type: FRAME.READ, size: 4096})
    fast.peer.socket.write(Buffer.concat(Array.from({length: 4}, () => encodeFrame({type: FRAME.READ, size: 128 * 1024}))))
    for (let count = 0; count < 4; count++) await fast.peer.next()
    most = Math.max(most, slabs.inUse - before)
  }
  t.ok(slow.connection.stream.output.bytes > MIB)
  t.ok(most < 40, `${most} slabs`)
})
