// Replicas that fail, in every way and at every moment.
import {setTimeout as sleep} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {ERRNO, OP} from '../../src/protocol/block-device.js'
import {ALL_FEATURES, FRAME} from '../../src/protocol/frame.js'
import {FrameServerConnection} from '../../src/protocol/frame-server.js'
import {slabs} from '../../src/lib/net/slab.js'
import {encodeFrame, FramePeer} from '../support/frames.js'
import {Pattern} from '../support/pattern.js'
import {read, submit, submitWrite, write, type Request} from '../support/request.js'
import {nodeSocket, socketPair} from '../support/sockets.js'
import {until} from '../support/until.js'
import {addHandMade, emptyVolume, fakeVolume, type FakeVolume} from './support/fake-replicas.js'

const MIB = 1024 * 1024
const pattern = new Pattern()

function modes({volume}: Pick<FakeVolume, 'volume'>): string[] {
  return volume.replicas.map(({mode}) => mode)
}

/** One request of each kind that goes to all replicas. */
function everyChange(volume: FakeVolume['volume']): Request[] {
  return [
    submitWrite(volume, 0, pattern.at(0, 4096)),
    submitWrite(volume, 8192, pattern.at(8192, 512), {fua: true}),
    submit(volume, OP.FLUSH),
    submit(volume, OP.DISCARD, 16_384, 4096),
    submit(volume, OP.WRITE_ZEROES, 32_768, 4096, {fua: true}),
  ]
}

async function answers(requests: readonly Request[]): Promise<number[]> {
  const errors: number[] = []
  for (const io of requests) errors.push((await io.answered).error)
  return errors
}

t.test('a replica dies', async t => {
  t.test('between requests', async t => {
    const fake = fakeVolume(t, {replicas: 3})
    await write(fake.volume, 0, pattern.at(0, 4096))
    fake.replicas[1]!.server.close()
    await until(() => fake.dropped.length > 0, 'it is dropped')
    t.same(modes(fake), ['RW', 'ERR', 'RW'])
    t.match(fake.dropped, [{address: 'tcp://127.0.0.1:10010', reason: {code: 'LH_UNREACHABLE', message: /closed by the peer/}}])
    t.match(fake.volume.replicas[1]!.failure, {code: 'LH_UNREACHABLE'})
    t.match(fake.lines, [{msg: 'replica dropped', replica: 'tcp://127.0.0.1:10010', left: 2}])
    t.match(await write(fake.volume, 0, pattern.at(5, 4096)), {error: 0})
    t.same(await read(fake.volume, 0, 4096), pattern.at(5, 4096))
    t.equal(pattern.mismatch(fake.replicas[1]!.device.bytes.subarray(0, 4096), 0), -1, 'it has got nothing more')
  })

  for (const when of ['before the others have answered', 'after the others have answered'] as const) {
    t.test(`with requests in flight, ${when}`, async t => {
      const fake = fakeVolume(t, {replicas: 3})
      for (const {device} of fake.replicas) device.mode = 'held'
      const changes = everyChange(fake.volume)
      const reads = Array.from({length: 9}, (_, index) => submit(fake.volume, OP.READ, index * 100, 100))
      await until(() => fake.replicas.every(({device}) => device.held === 8), 'all are in flight')
      const finish = (): void => {
        for (const {device} of [fake.replicas[0]!, fake.replicas[2]!]) {
          device.mode = 'now'
          device.release()
        }
      }
      if (when.startsWith('after')) {
        finish()
        await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
        t.ok(changes.every(io => io.answers === 0), 'nothing is finished before the third has answered or is gone')
      }
      fake.replicas[1]!.server.close()
      await until(() => fake.dropped.length > 0, 'it is dropped')
      if (when.startsWith('before')) finish()
      t.same(await answers([...changes, ...reads]), new Array(14).fill(0))
      t.ok([...changes, ...reads].every(io => io.answers === 1))
      t.equal(fake.dropped.length, 1)
      fake.replicas[1]!.device.release()
    })
  }

  t.test('one after the other, until none is left', async t => {
    const fake = fakeVolume(t, {replicas: 3})
    for (const {device} of fake.replicas) device.mode = 'held'
    for (const {server} of fake.replicas) {
      const changes = everyChange(fake.volume)
      const reads = Array.from({length: 6}, () => submit(fake.volume, OP.READ, 0, 100))
      server.close()
      await until(() => modes(fake).filter(mode => mode === 'ERR').length === fake.replicas.filter(one => one.server.stream.closed).length, 'it is dropped')
      if (modes(fake).includes('RW')) continue
      t.same(await answers([...changes, ...reads]), new Array(11).fill(ERRNO.EIO))
    }
    await fake.volume.drained()
    t.equal(fake.dropped.length, 3)
    t.match(await write(fake.volume, 0, Buffer.alloc(1)), {error: ERRNO.EIO})
    t.match(await submit(fake.volume, OP.READ, 0, 1).answered, {error: ERRNO.EIO})
    t.match(await submit(fake.volume, OP.FLUSH).answered, {error: ERRNO.EIO})
    t.same(await fake.volume.blockStatus(0, 10), [{offset: 0, length: 10, allocated: true}])
  })

  t.test('all in the same turn', async t => {
    const fake = fakeVolume(t, {replicas: 2})
    for (const {device} of fake.replicas) device.mode = 'held'
    const all = [...everyChange(fake.volume), submit(fake.volume, OP.READ, 0, 100)]
    await until(() => fake.replicas.every(({device}) => device.held >= 5), 'all are in flight')
    for (const {server} of fake.replicas) server.close()
    t.same(await answers(all), new Array(6).fill(ERRNO.EIO))
    t.ok(all.every(io => io.answers === 1))
  })

  t.test('in the middle of zeros written by hand', async t => {
    const fake = fakeVolume(t, {replicas: 2, sizeBytes: 8 * MIB, features: [[], []]})
    for (const {device} of fake.replicas) device.bytes.fill(7)
    fake.replicas[0]!.device.fault = io => {
      if (io.offset > 4 * MIB) fake.replicas[0]!.server.close()
      return 0
    }
    t.match(await submit(fake.volume, OP.WRITE_ZEROES, 0, 8 * MIB).answered, {error: 0})
    t.ok(fake.replicas[1]!.device.bytes.equals(Buffer.alloc(8 * MIB)))
    t.same(modes(fake), ['ERR', 'RW'])
  })
})

/** What each replica answers to a change, what the initiator gets, and what becomes of the replicas. */
const OUTCOMES: {name: string; faults: number[]; error: number; modes: string[]}[] = [
  {name: 'a full disk on one', faults: [ERRNO.ENOSPC, 0], error: 0, modes: ['ERR', 'RW']},
  {name: 'a full disk on all', faults: [ERRNO.ENOSPC, ERRNO.ENOSPC], error: ERRNO.ENOSPC, modes: ['RW', 'RW']},
  {name: 'a bad disk on one', faults: [0, ERRNO.EIO], error: 0, modes: ['RW', 'ERR']},
  {name: 'a bad disk on all', faults: [ERRNO.EIO, ERRNO.EIO], error: ERRNO.EIO, modes: ['RW', 'RW']},
  {name: 'one full, one bad', faults: [ERRNO.ENOSPC, ERRNO.EIO], error: ERRNO.EIO, modes: ['RW', 'RW']},
  {name: 'one bad, one full', faults: [ERRNO.EIO, ERRNO.ENOSPC], error: ERRNO.EIO, modes: ['RW', 'RW']},
  {name: 'two of three bad', faults: [ERRNO.EIO, ERRNO.ENOSPC, 0], error: 0, modes: ['ERR', 'ERR', 'RW']},
  {name: 'one that is closed', faults: [ERRNO.ESHUTDOWN, 0], error: 0, modes: ['ERR', 'RW']},
  {name: 'the only one is full', faults: [ERRNO.ENOSPC], error: ERRNO.ENOSPC, modes: ['RW']},
]

for (const {name, faults, error, modes: expected} of OUTCOMES) {
  t.test(`errors: ${name}`, async t => {
    for (const op of [OP.WRITE, OP.FLUSH, OP.DISCARD, OP.WRITE_ZEROES]) {
      const fake = fakeVolume(t, {replicas: faults.length})
      fake.replicas.forEach(({device}, index) => {
        device.fault = io => (io.op === op ? faults[index]! : 0)
      })
      const io = op === OP.WRITE ? submitWrite(fake.volume, 0, pattern.at(0, 4096)) : submit(fake.volume, op, 0, op === OP.FLUSH ? 0 : 4096)
      t.equal((await io.answered).error, error, `operation ${op}`)
      await until(() => fake.dropped.length === expected.filter(mode => mode === 'ERR').length, 'those that differ are dropped')
      t.same(modes(fake), expected)
      // Whoever is left still serves.
      t.equal((await read(fake.volume, 0, 100)).length, 100)
      fake.volume.close()
    }
  })
}

t.test('a full disk is told in the words of the replica', async t => {
  const fake = fakeVolume(t, {replicas: 2})
  fake.replicas[0]!.device.fault = () => ERRNO.ENOSPC
  await write(fake.volume, 0, Buffer.alloc(1))
  t.match(fake.dropped, [{reason: {code: 'LH_IO', message: /^replica tcp:\/\/127\.0\.0\.1:10000: .*no space left on device/}}])
})

t.test('a disk that is full can be freed: nothing was dropped', async t => {
  const fake = fakeVolume(t, {replicas: 2})
  for (const {device} of fake.replicas) device.full = true
  t.match(await write(fake.volume, 0, pattern.at(0, 4096)), {error: ERRNO.ENOSPC})
  for (const {device} of fake.replicas) device.full = false
  t.match(await write(fake.volume, 0, pattern.at(0, 4096)), {error: 0})
  t.same(await read(fake.volume, 0, 4096), pattern.at(0, 4096))
  t.same(fake.dropped, [])
})

t.test('one full and one dead: a full disk is what the initiator can do something about', async t => {
  const fake = fakeVolume(t, {replicas: 2})
  fake.replicas[0]!.device.fault = () => ERRNO.ENOSPC
  fake.replicas[1]!.device.mode = 'held'
  const io = submitWrite(fake.volume, 0, Buffer.alloc(512))
  await until(() => fake.replicas[1]!.device.held === 1, 'it is in flight')
  fake.replicas[1]!.server.close()
  t.match(await io.answered, {error: ERRNO.ENOSPC})
  t.same(modes(fake), ['RW', 'ERR'])
})

t.test('reads that fail', async t => {
  t.test('are tried on the other replicas, which does not cost the replica its place', async t => {
    const fake = fakeVolume(t, {replicas: 3})
    await write(fake.volume, 0, pattern.at(0, 100_000))
    for (const {device} of fake.replicas.slice(0, 2)) device.fault = io => (io.op === OP.READ && io.offset < 50_000 ? ERRNO.EIO : 0)
    const reads = Array.from({length: 20}, (_, index) => submit(fake.volume, OP.READ, index * 4096, 4096))
    for (const io of reads) t.same(await io.answered, {error: 0, data: pattern.at(io.offset, 4096)})
    t.same(modes(fake), ['RW', 'RW', 'RW'])
    t.ok(fake.lines.some(line => line.msg === 'read failed on a replica' && line.error === 'input/output error'))
  })

  t.test('everywhere are an error', async t => {
    const fake = fakeVolume(t, {replicas: 3})
    for (const {device} of fake.replicas) device.fault = () => ERRNO.EIO
    t.match(await submit(fake.volume, OP.READ, 0, 4096).answered, {error: ERRNO.EIO})
    t.same(modes(fake), ['RW', 'RW', 'RW'])
  })

  t.test('because of another length cost the replica its place', async t => {
    const {volume, dropped} = emptyVolume(t)
    const liar = addHandMade(t, volume)
    const honest = addHandMade(t, volume)
    const io = submit(volume, OP.READ, 0, 4096)
    const asked = await liar.peer.next()
    liar.peer.send({sequence: asked.sequence, type: FRAME.EOF, size: 512, payload: Buffer.alloc(512)})
    const again = await honest.peer.next()
    honest.peer.send({sequence: again.sequence, type: FRAME.RESPONSE, size: 4096, payload: pattern.at(0, 4096)})
    t.same(await io.answered, {error: 0, data: pattern.at(0, 4096)})
    t.match(dropped, [{reason: {code: 'LH_PROTOCOL', message: /answered 512 bytes to a read of 4096$/}}])
  })
})

t.test('an answer that makes no sense costs a replica its place and the initiator nothing', async t => {
  for (const type of [FRAME.WRITE, FRAME.ENOSPC, 9]) {
    const {volume, dropped} = emptyVolume(t)
    const mad = addHandMade(t, volume)
    const sane = addHandMade(t, volume)
    const writing = submitWrite(volume, 0, Buffer.alloc(512))
    const reading = submit(volume, OP.READ, 0, 512)
    const asked = [await mad.peer.next(), await mad.peer.next()].map(frame => frame.sequence)
    mad.peer.send({sequence: asked[0]!, type})
    const first = await sane.peer.next()
    sane.peer.send({sequence: first.sequence, type: FRAME.RESPONSE, ...(first.type === FRAME.READ ? {payload: Buffer.alloc(512)} : {})})
    const second = await sane.peer.next()
    sane.peer.send({sequence: second.sequence, type: FRAME.RESPONSE, ...(second.type === FRAME.READ ? {payload: Buffer.alloc(512)} : {})})
    t.same(await answers([writing, reading]), [0, 0], `an answer of type ${type}`)
    t.match(dropped, [{reason: {code: 'LH_PROTOCOL'}}])
  }
})

t.test('a replica that says nothing', async t => {
  t.test('is dropped in time, and what it was asked goes on without it', async t => {
    const fake = fakeVolume(t, {replicas: 2, timeoutMs: 1000})
    fake.replicas[0]!.device.mode = 'held'
    const started = performance.now()
    const all = [...everyChange(fake.volume), ...Array.from({length: 4}, () => submit(fake.volume, OP.READ, 0, 100))]
    t.same(await answers(all), new Array(9).fill(0))
    const took = performance.now() - started
    t.ok(took > 950 && took < 30_000, `${Math.round(took)} ms`)
    t.match(fake.dropped, [{address: 'tcp://127.0.0.1:10000', reason: {code: 'LH_TIMEOUT', message: /no request finished for 1000 ms$/}}])
    // What it still says is of no interest.
    fake.replicas[0]!.device.release()
    t.match(await write(fake.volume, 0, Buffer.alloc(1)), {error: 0})
  })

  t.test('and is the last one is given twice the time', async t => {
    const fake = fakeVolume(t, {replicas: 1, timeoutMs: 1200})
    fake.replicas[0]!.device.mode = 'held'
    const started = performance.now()
    t.match(await write(fake.volume, 0, Buffer.alloc(1)), {error: ERRNO.EIO})
    const took = performance.now() - started
    t.ok(took > 2300 && took < 30_000, `${Math.round(took)} ms`)
    t.match(fake.dropped, [{reason: {message: /no request finished for 2400 ms$/}}])
  })

  t.test('to a ping, without any I/O', async t => {
    const {volume, dropped} = emptyVolume(t, {timeoutMs: 500})
    addHandMade(t, volume)
    await until(() => dropped.length > 0, 'it is dropped')
    t.match(dropped, [{reason: {code: 'LH_TIMEOUT'}}])
  })
})

t.test('one read that is never answered costs one replica its place, and not those it is tried on next', async t => {
  const fake = fakeVolume(t, {replicas: 3, timeoutMs: 1000})
  const [first] = fake.replicas
  first!.device.mode = 'held'
  const io = submit(fake.volume, OP.READ, 0, 4096)
  await until(() => first!.device.held === 1, 'the first one has it')
  // It answers everything else, so only the age of this one request tells.
  while (fake.dropped.length === 0) {
    const other = submitWrite(fake.volume, 8192, Buffer.alloc(512))
    while (other.answers === 0 && fake.dropped.length === 0) {
      first!.device.release(held => held.filter(one => one.io.op !== OP.READ))
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  }
  t.match(await io.answered, {error: 0})
  t.same(modes(fake), ['ERR', 'RW', 'RW'])
  t.match(fake.dropped, [{reason: {code: 'LH_TIMEOUT', message: /a request has waited for 4000 ms$/}}])
})

t.test('a flush that takes longer than the time-out', async t => {
  t.test('on all of them costs nobody its place: they answer, and have much to write', async t => {
    const fake = fakeVolume(t, {replicas: 2, timeoutMs: 1000})
    for (const {device} of fake.replicas) device.mode = 'held'
    const io = submit(fake.volume, OP.FLUSH)
    await sleep(5500)
    for (const {device} of fake.replicas) device.release()
    t.match(await io.answered, {error: 0})
    t.same(modes(fake), ['RW', 'RW'])
  })

  t.test('on one of them costs it its place, after four time-outs', async t => {
    const fake = fakeVolume(t, {replicas: 2, timeoutMs: 500})
    fake.replicas[1]!.device.mode = 'held'
    t.match(await submit(fake.volume, OP.FLUSH).answered, {error: 0})
    t.same(modes(fake), ['RW', 'ERR'])
    t.match(fake.dropped, [{reason: {code: 'LH_TIMEOUT', message: /: a request has waited for 2000 ms$/}}])
  })
})

t.test('when it is this process that stood still, the replicas are not to blame', async t => {
  const fake = fakeVolume(t, {replicas: 2, timeoutMs: 2000})
  const io = submitWrite(fake.volume, 0, pattern.at(0, 4096))
  // A machine that was suspended, or a debugger: answers may be waiting when it goes on.
  const forever = new Int32Array(new SharedArrayBuffer(4))
  Atomics.wait(forever, 0, 0, 4500)
  t.match(await io.answered, {error: 0})
  await new Promise(resolve => setTimeout(resolve, 1200))
  t.same(modes(fake), ['RW', 'RW'])
})

t.test('a replica that is being rebuilt', async t => {
  const rebuilding = (t: Test): FakeVolume => fakeVolume(t, {modes: ['RW', 'WO']})

  t.test('is written and flushed, and not read', async t => {
    const fake = rebuilding(t)
    for (const {device} of fake.replicas) device.records = []
    await write(fake.volume, 0, pattern.at(0, 4096))
    await submit(fake.volume, OP.FLUSH).answered
    for (let index = 0; index < 10; index++) await read(fake.volume, 0, 512)
    t.same(fake.replicas[1]!.device.records!.map(({op}) => op), [OP.WRITE, OP.FLUSH])
  })

  t.test('cannot replace the only good one when that has a full disk', async t => {
    const fake = rebuilding(t)
    fake.replicas[0]!.device.fault = io => (io.op === OP.WRITE ? ERRNO.ENOSPC : 0)
    t.match(await write(fake.volume, 0, pattern.at(0, 4096)), {error: ERRNO.ENOSPC})
    t.same(modes(fake), ['RW', 'ERR'], 'the one that has what the other refused is out')
    t.match(fake.dropped, [{reason: {message: /: it has a write that the others refused$/}}])
    t.equal((await read(fake.volume, 0, 4096)).length, 4096)
  })

  t.test('goes on alone only with errors', async t => {
    const fake = rebuilding(t)
    fake.replicas[0]!.server.close()
    await until(() => fake.dropped.length > 0, 'it is dropped')
    t.match(await write(fake.volume, 0, Buffer.alloc(1)), {error: ERRNO.EIO})
    t.match(await submit(fake.volume, OP.READ, 0, 1).answered, {error: ERRNO.EIO})
  })
})

t.test('memory is bounded while a replica stands still', async t => {
  const {volume, dropped} = emptyVolume(t, {sizeBytes: 64 * MIB, timeoutMs: 2000})
  const stuck = addHandMade(t, volume, ALL_FEATURES)
  stuck.peer.socket.pause()
  const [near, far] = socketPair()
  const frontend = new FrameServerConnection(near, {device: volume, noSpaceType: FRAME.ENOSPC, peer: 'initiator', onClose: () => undefined})
  const initiator = new FramePeer(nodeSocket(far))
  t.teardown(() => {
    frontend.close()
    initiator.socket.destroy()
  })
  const before = slabs.inUse
  const memory = process.memoryUsage().rss
  const bytes = encodeFrame({type: FRAME.WRITE, size: 4096, payload: Buffer.alloc(4096)})
  let most = 0
  while (dropped.length === 0) {
    if (!initiator.socket.writableNeedDrain) initiator.socket.write(Buffer.concat(Array.from({length: 64}, () => bytes)))
    await new Promise(resolve => setImmediate(resolve))
    most = Math.max(most, slabs.inUse - before)
  }
  t.ok(most < 100, `${most} slabs`)
  const grown = (process.memoryUsage().rss - memory) / MIB
  t.ok(grown < 200, `${Math.round(grown)} MiB more memory`)
  t.match(await initiator.next(), {type: FRAME.ERROR})
  await until(() => slabs.inUse <= before + 1, 'every slab has been given back')
})
