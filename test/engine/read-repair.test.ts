// What one replica cannot read and another can is answered, and made good.
import {setImmediate as nextTurn} from 'node:timers/promises'
import t from 'tap'
import {LonghornError} from '../../src/lib/errors.js'
import {ERRNO, MAX_IO_BYTES, OP} from '../../src/protocol/block-device.js'
import {ALL_FEATURES, FEATURE, FRAME} from '../../src/protocol/frame.js'
import {Random} from '../replica/support/random.js'
import {Pattern} from '../support/pattern.js'
import {read, submit, submitWrite, write} from '../support/request.js'
import {until} from '../support/until.js'
import {addFake, addHandMade, emptyVolume, fakeVolume, type FakeVolume} from './support/fake-replicas.js'

const BLOCK = 4096
const pattern = new Pattern()

/** Two replicas; only the first can be read from at first, as it is local. */
async function oneBad(t: Parameters<typeof fakeVolume>[0], blocks: readonly number[], features: readonly string[] = ALL_FEATURES): Promise<FakeVolume> {
  const fake = fakeVolume(t, {hosts: ['127.0.0.1', '192.0.2.1'], features: [features]})
  await write(fake.volume, 0, pattern.at(0, 16 * BLOCK))
  for (const block of blocks) {
    fake.replicas[0]!.device.badBlocks.add(block)
    fake.replicas[0]!.device.bytes.fill(0xbd, block * BLOCK, (block + 1) * BLOCK)
  }
  return fake
}

t.test('a bad read is answered and repaired, and the replica stays', async t => {
  const fake = await oneBad(t, [3, 4])
  const [{device}] = fake.replicas as [FakeVolume['replicas'][number]]
  t.same(await read(fake.volume, 3 * BLOCK + 100, BLOCK), pattern.at(3 * BLOCK + 100, BLOCK))
  await until(() => fake.volume.repairs.idle, 'it is repaired')
  t.equal(pattern.mismatch(device.bytes.subarray(0, 16 * BLOCK), 0), -1, 'all of both blocks')
  t.equal(device.badBlocks.size, 0)
  t.same(fake.volume.repairs.counts, {repaired: 1, frozen: 0, failed: 0})
  t.same(fake.dropped, [])
  t.match(fake.lines.filter(({msg}) => msg === 'what could not be read was repaired'), [{replica: 'tcp://127.0.0.1:10000', offset: 3 * BLOCK, length: 2 * BLOCK}])
  await read(fake.volume, 3 * BLOCK, BLOCK)
  t.equal(device.repairs, 1)
})

t.test('the same range, asked for many times at once, is repaired once', async t => {
  const fake = await oneBad(t, [0])
  fake.replicas[0]!.device.mode = 'later'
  await Promise.all(Array.from({length: 20}, () => read(fake.volume, 0, BLOCK)))
  await until(() => fake.volume.repairs.idle, 'it is repaired')
  t.equal(fake.volume.repairs.counts.repaired, 1)
})

t.test('a range that is longer than a request once its ends are whole blocks', async t => {
  const fake = fakeVolume(t, {hosts: ['127.0.0.1', '192.0.2.1']})
  await write(fake.volume, 0, pattern.at(0, MAX_IO_BYTES))
  await write(fake.volume, MAX_IO_BYTES, pattern.at(MAX_IO_BYTES, BLOCK))
  fake.replicas[0]!.device.badBlocks.add(0).add(32)
  await read(fake.volume, 100, MAX_IO_BYTES)
  await until(() => fake.volume.repairs.idle, 'it is repaired')
  t.equal(fake.replicas[0]!.device.badBlocks.size, 0)
  t.equal(fake.replicas[0]!.device.repairs, 2)
})

t.test('the end of a volume that is no whole number of blocks', async t => {
  const sizeBytes = 3 * BLOCK + 512
  const fake = fakeVolume(t, {sizeBytes, hosts: ['127.0.0.1', '192.0.2.1']})
  await write(fake.volume, 3 * BLOCK, pattern.at(0, 512))
  fake.replicas[0]!.device.badBlocks.add(3)
  t.same(await read(fake.volume, 3 * BLOCK, 512), pattern.at(0, 512))
  await until(() => fake.volume.repairs.idle, 'it is repaired')
  t.equal(fake.replicas[0]!.device.badBlocks.size, 0)
})

t.test('what cannot be rewritten either puts the replica out of use, with the reason', async t => {
  const fake = await oneBad(t, [2])
  fake.replicas[0]!.device.repairFault = new LonghornError('IO', 'the sector is gone')
  t.same(await read(fake.volume, 2 * BLOCK, 1), pattern.at(2 * BLOCK, 1))
  await until(() => fake.dropped.length > 0, 'it is dropped')
  t.match(fake.dropped, [{address: 'tcp://127.0.0.1:10000', reason: {code: 'LH_IO', message: /a read at 8192 failed, and so did rewriting it: .*input\/output error/}}])
  t.same(await read(fake.volume, 2 * BLOCK, 1), pattern.at(2 * BLOCK, 1))
  t.equal(fake.volume.repairs.counts.failed, 1)
})

t.test('a replica without the feature is served from another one, as before', async t => {
  const fake = await oneBad(t, [1], ALL_FEATURES.filter(name => name !== FEATURE.REPAIR))
  for (let count = 0; count < 3; count++) t.same(await read(fake.volume, BLOCK, BLOCK), pattern.at(BLOCK, BLOCK))
  t.ok(fake.volume.repairs.idle)
  t.equal(fake.replicas[0]!.device.repairs, 0)
  t.same(fake.dropped, [])
})

t.test('blocks of a snapshot are left to scrub', async t => {
  const fake = await oneBad(t, [5, 6])
  fake.replicas[0]!.device.frozenBlocks.add(5)
  const told: unknown[] = []
  fake.volume.repairs.onFrozen = (link, offset, length) => told.push([link.address, offset, length])
  await read(fake.volume, 5 * BLOCK, 2 * BLOCK)
  await until(() => fake.volume.repairs.idle, 'it is repaired')
  t.same([...fake.replicas[0]!.device.badBlocks], [5])
  t.same(told, [['tcp://127.0.0.1:10000', 5 * BLOCK, 2 * BLOCK]])
  t.same(fake.volume.repairs.counts, {repaired: 1, frozen: 1, failed: 0})
})

t.test('blocks of a snapshot that are read again and again: one line, one repair, one word to scrub', async t => {
  const fake = await oneBad(t, [5])
  const {device} = fake.replicas[0]!
  device.frozenBlocks.add(5)
  let told = 0
  fake.volume.repairs.onFrozen = () => told++
  for (let count = 0; count < 200; count++) {
    t.same(await read(fake.volume, 5 * BLOCK + count, 1), pattern.at(5 * BLOCK + count, 1))
    await until(() => fake.volume.repairs.idle, 'nothing is under way')
  }
  t.equal(told, 1)
  t.equal(device.repairs, 1)
  t.same(fake.volume.repairs.counts, {repaired: 0, frozen: 1, failed: 0})
  fake.volume.close()
  t.match(
    fake.lines.filter(({replica}) => replica === 'tcp://127.0.0.1:10000'),
    [{msg: 'read failed on a replica', offset: 5 * BLOCK}, {msg: 'what could not be read lies in a snapshot'}, {msg: 'read failed on a replica', times: 199}],
  )
  t.equal(fake.lines.length, 3)
})

t.test('bad on all replicas: the initiator gets the error, nobody is dropped', async t => {
  const fake = await oneBad(t, [7])
  fake.replicas[1]!.device.badBlocks.add(7)
  t.match(await submit(fake.volume, OP.READ, 7 * BLOCK, 1).answered, {error: ERRNO.EIO})
  t.ok(fake.volume.repairs.idle)
  t.same(fake.dropped, [])
})

t.test('the other one turns bad before its data can be copied', async t => {
  const fake = await oneBad(t, [7])
  // A change in flight keeps the repair waiting.
  fake.replicas[1]!.device.mode = 'held'
  const change = submitWrite(fake.volume, 0, pattern.at(0, 512))
  await until(() => fake.replicas[1]!.device.held === 1, 'it is in flight')
  fake.replicas[1]!.device.mode = 'now'
  await read(fake.volume, 7 * BLOCK, 1)
  fake.replicas[1]!.device.badBlocks.add(7)
  fake.replicas[1]!.device.release()
  await change.answered
  await until(() => fake.volume.repairs.idle, 'it is given up')
  t.same(fake.dropped, [])
  t.equal(fake.volume.repairs.counts.failed, 1)
})

t.test('changes of the range wait for the repair, everything else does not', async t => {
  const {volume, dropped} = emptyVolume(t)
  const bad = addHandMade(t, volume)
  const good = addFake(t, volume, 1024 * 1024, ALL_FEATURES, '192.0.2.1')
  const reading = read(volume, 0, BLOCK)
  const asked = await bad.peer.next()
  bad.peer.send({sequence: asked.sequence, type: FRAME.ERROR, payload: Buffer.from('bad sector')})
  await reading
  const repair = await bad.peer.next()
  t.match(repair, {type: FRAME.REPAIR, offset: 0n, size: BLOCK})
  const inside = submitWrite(volume, 512, pattern.at(0, 512))
  const wiped = submit(volume, OP.WRITE_ZEROES, 0, 3 * BLOCK)
  const outside = submitWrite(volume, BLOCK, pattern.at(0, 512))
  const next = await bad.peer.next()
  t.match(next, {type: FRAME.WRITE, offset: BigInt(BLOCK)}, 'the one outside')
  bad.peer.send({sequence: next.sequence, type: FRAME.RESPONSE})
  t.match(await outside.answered, {error: 0})
  let stands = false
  const pausing = volume.pause().then(() => {
    stands = true
  })
  await nextTurn()
  t.equal(inside.answers + wiped.answers, 0)
  t.notOk(stands, 'a barrier waits for the repair and for what waits for it')
  const left = Buffer.alloc(4)
  bad.peer.send({sequence: repair.sequence, type: FRAME.RESPONSE, size: BLOCK, payload: left})
  for (const [type, offset] of [[FRAME.WRITE, 512n], [FRAME.WRITE_ZEROES, 0n]] as const) {
    const frame = await bad.peer.next()
    t.match(frame, {type, offset})
    bad.peer.send({sequence: frame.sequence, type: FRAME.RESPONSE})
  }
  t.match(await inside.answered, {error: 0})
  t.match(await wiped.answered, {error: 0})
  await pausing
  volume.resume()
  t.same(good.device.bytes.subarray(0, 3 * BLOCK), Buffer.alloc(3 * BLOCK))
  t.same(dropped, [])
})

t.test('answers to a repair that make no sense, and none at all', async t => {
  for (const payload of [undefined, Buffer.alloc(0), Buffer.alloc(3), Buffer.alloc(5), Buffer.from('01100000', 'hex')]) {
    const {volume, dropped} = emptyVolume(t)
    const bad = addHandMade(t, volume)
    addFake(t, volume, 1024 * 1024, ALL_FEATURES, '192.0.2.1')
    const reading = read(volume, 0, BLOCK)
    bad.peer.send({sequence: (await bad.peer.next()).sequence, type: FRAME.ERROR, payload: Buffer.from('bad sector')})
    await reading
    const repair = await bad.peer.next()
    const waiting = submitWrite(volume, 0, pattern.at(0, 512))
    if (payload === undefined) bad.peer.socket.destroy()
    else bad.peer.send({sequence: repair.sequence, type: FRAME.RESPONSE, payload})
    t.match(await waiting.answered, {error: 0}, 'what waited goes on without it')
    t.equal(dropped.length, 1)
    t.ok(volume.repairs.idle)
  }
})

t.test('closing in the middle', async t => {
  const {volume} = emptyVolume(t)
  const bad = addHandMade(t, volume)
  addFake(t, volume, 1024 * 1024, ALL_FEATURES, '192.0.2.1')
  const reading = read(volume, 0, BLOCK)
  bad.peer.send({sequence: (await bad.peer.next()).sequence, type: FRAME.ERROR, payload: Buffer.from('bad sector')})
  await reading
  await bad.peer.next()
  const waiting = submitWrite(volume, 0, pattern.at(0, 512))
  volume.close()
  t.match(await waiting.answered, {error: ERRNO.EIO})
  await volume.drained()
  t.ok(volume.repairs.idle)
})

t.test('writes racing with repairs: none is lost, and the replicas are the same whenever the volume stands still', async t => {
  const first = Number(process.env['LONGHORN_TEST_SEED'] ?? Math.floor(Math.random() * 0x1_0000_0000))
  let repaired = 0
  for (let seed = first; seed < first + 60; seed++) {
    const result = await race(t, seed).catch((error: unknown) => {
      throw new Error(`LONGHORN_TEST_SEED=${seed}`, {cause: error})
    })
    repaired += result
  }
  t.ok(repaired > 60, `${repaired} repairs`)
})

/** Writers of blocks of their own, readers, and sectors that go bad on one replica at a time. Resolves to the number of repairs. */
async function race(t: Parameters<typeof fakeVolume>[0], seed: number): Promise<number> {
  const random = new Random(seed)
  const BLOCKS = 24
  const fake = fakeVolume(t, {replicas: 2 + random.below(2), sizeBytes: BLOCKS * BLOCK})
  const {volume, replicas} = fake
  const expected = Buffer.alloc(BLOCKS * BLOCK)
  let going = true
  const same = (when: string): void => {
    for (const {device} of replicas) {
      for (let block = 0; block < BLOCKS; block++) {
        const range = [block * BLOCK, (block + 1) * BLOCK] as const
        if (device.badBlocks.has(block) || device.bytes.subarray(...range).equals(expected.subarray(...range))) continue
        throw new Error(`block ${block} is not what was written, ${when}`)
      }
    }
  }
  const writer = async (index: number): Promise<void> => {
    for (let count = 0; count < 40; count++) {
      const from = index * 6 * BLOCK + random.below(5) * BLOCK + random.below(8) * 512
      const length = 512 * (1 + random.below(8))
      if (random.oneIn(6)) {
        expected.fill(0, from, from + length)
        await submit(volume, OP.WRITE_ZEROES, from, length).answered
      } else {
        const data = Buffer.alloc(length, 1 + random.below(255))
        data.copy(expected, from)
        await write(volume, from, data)
      }
    }
  }
  const reader = async (): Promise<void> => {
    while (going) {
      const from = random.below(BLOCKS * BLOCK - 1)
      const {error} = await submit(volume, OP.READ, from, Math.min(BLOCKS * BLOCK - from, 1 + random.below(3 * BLOCK))).answered
      if (error !== 0) throw new Error('a read failed')
      await nextTurn()
    }
  }
  const trouble = async (): Promise<void> => {
    const victim = replicas[random.below(replicas.length)]!.device
    while (going) {
      for (const {device} of replicas) device.mode = random.oneIn(3) ? 'later' : 'now'
      const block = random.below(BLOCKS)
      victim.badBlocks.add(block)
      victim.bytes.fill(0xbd, block * BLOCK, (block + 1) * BLOCK)
      await nextTurn()
      if (random.oneIn(10)) await volume.pause().then(() => volume.resume())
    }
  }
  const writers = Promise.all([0, 1, 2, 3].map(writer)).finally(() => {
    going = false
  })
  await Promise.all([writers, reader(), reader(), trouble()])
  await until(() => volume.repairs.idle, 'all is repaired')
  await volume.pause()
  same('at the end')
  volume.resume()
  if (fake.dropped.length > 0) throw fake.dropped[0]!.reason
  const {repaired} = volume.repairs.counts
  volume.close()
  return repaired
}
