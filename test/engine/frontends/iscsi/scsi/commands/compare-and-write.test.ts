import {randomFillSync} from 'node:crypto'
import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {seededRandom} from '../../../../../replica/support/random.js'
import {CHECK, GOOD, be, MiB, serve, type Initiator} from '../support/served-disk.js'
import type {Result} from '../support/fake-task.js'

const END = 16 * MiB / 512

function compareAndWrite(a: Initiator, lba: number | bigint, blocks: number, expected: Buffer, wanted: Buffer, flags = 0): Promise<Result> {
  return a.send(`89 ${be(flags, 1)} ${be(lba, 8)} 000000 ${be(blocks, 1)} 00 00`, {out: Buffer.concat([expected, wanted])})
}

function orWrite(a: Initiator, lba: number | bigint, blocks: number, out: Buffer, flags = 0, late = false): Promise<Result> {
  return a.send(`8b ${be(flags, 1)} ${be(lba, 8)} ${be(blocks, 4)} 00 00`, {out, late, pieceBytes: 40_000})
}

t.test('COMPARE AND WRITE writes where the data is as expected', async t => {
  const {a, device} = await serve()
  for (const blocks of [1, 3, 255]) {
    const [old, wanted] = [randomFillSync(Buffer.alloc(blocks * 512)), randomFillSync(Buffer.alloc(blocks * 512))]
    old.copy(device.bytes, 5 * 512)
    const {status, transferLength} = await compareAndWrite(a, 5, blocks, old, wanted)
    t.same([status, transferLength], [GOOD, blocks * 1024])
    t.ok(device.bytes.subarray(5 * 512, (5 + blocks) * 512).equals(wanted))
    for (const at of [0, 100, blocks * 512 - 1]) {
      const other = Buffer.from(wanted)
      other[at]! ^= 1
      const {status, sense, senseBytes} = await compareAndWrite(a, 5, blocks, other, old)
      t.same([status, sense, senseBytes.readUInt32BE(3)], [CHECK, 'e/1d/00', at])
      t.ok(device.bytes.subarray(5 * 512, (5 + blocks) * 512).equals(wanted), 'nothing was written')
    }
  }
})

t.test('COMPARE AND WRITE: FUA, and what is refused', async t => {
  const {a, device} = await serve()
  const zero = Buffer.alloc(512)
  await compareAndWrite(a, 0, 1, zero, Buffer.alloc(512, 1), 0x08)
  t.equal(device.dirty.size, 0)
  device.records = []
  t.equal((await a.send(`89 00 ${be(0, 8)} 000000 00 00 00`)).status, GOOD, 'nothing at all')
  t.equal((await compareAndWrite(a, END, 1, zero, zero)).sense, '5/21/00')
  t.equal((await compareAndWrite(a, 1n << 60n, 1, zero, zero)).sense, '5/21/00')
  t.equal((await compareAndWrite(a, 0, 1, zero, zero, 0x20)).sense, '5/24/00')
  for (const blocks of [0, 2, 3]) {
    const {sense, senseBytes} = await compareAndWrite(a, 0, blocks, zero, zero)
    t.same([sense, senseBytes.toString('hex', 15, 18)], ['5/24/00', 'c0000d'], 'data of another length')
  }
  t.same(device.records, [])
  for (const op of [OP.READ, OP.WRITE]) {
    device.fault = io => (io.op === op ? ERRNO.EIO : 0)
    const current = Buffer.from(device.bytes.subarray(0, 512))
    t.equal((await compareAndWrite(a, 0, 1, current, zero)).sense, op === OP.READ ? '3/11/00' : '3/0c/00')
  }
  device.fault = () => 0
  t.equal((await a.send('28 00 00000000 00 0001 00')).status, GOOD, 'the range is free again')
})

t.test('ORWRITE sets bits', async t => {
  const {a, device} = await serve()
  for (const late of [false, true]) {
    device.mode = late ? 'later' : 'now'
    const [old, bits] = [randomFillSync(Buffer.alloc(600 * 512)), randomFillSync(Buffer.alloc(600 * 512))]
    old.copy(device.bytes, 3 * 512)
    t.equal((await orWrite(a, 3, 600, bits, 0, late)).status, GOOD)
    const expected = Buffer.from(old.map((byte, index) => byte | bits[index]!))
    t.ok(device.bytes.subarray(3 * 512, 603 * 512).equals(expected))
  }
  t.equal((await orWrite(a, 0, 0, Buffer.alloc(0))).status, GOOD)
  t.equal((await orWrite(a, END, 1, Buffer.alloc(512))).sense, '5/21/00')
  t.equal((await orWrite(a, 0, 1, Buffer.alloc(512), 0x40)).sense, '5/24/00')
  t.equal((await orWrite(a, 0, 2, Buffer.alloc(512))).sense, '5/0e/03')
})

t.test('model: a lock on one block is held by one of many', async t => {
  const {a, join, device} = await serve()
  const others = [a, await join('b'), await join('c')]
  const random = seededRandom(t)
  device.mode = 'held'
  const pump = setInterval(() => device.release(held => [...held].sort(() => random.below(3) - 1), 1 + random.below(3)))
  const number = (value: number): Buffer => {
    const block = Buffer.alloc(512)
    block.writeUInt32BE(value)
    return block
  }
  // Each adds one to a counter, as often as it takes, while ordinary requests go on all around.
  let added = 0
  const tries = others.map(async initiator => {
    for (let round = 0; round < 40; round++) {
      for (let done = false; !done; ) {
        const {data} = await initiator.send(`28 00 ${be(9, 4)} 00 0001 00`, {in: 512})
        const value = data.readUInt32BE()
        const {sense} = await compareAndWrite(initiator, 9, 1, number(value), number(value + 1))
        done = sense === ''
        if (!done && sense !== 'e/1d/00') t.fail(sense)
      }
      added++
    }
  })
  let over = false
  const noise = others.map(async initiator => {
    while (!over) {
      const lba = random.below(8)
      await initiator.send(`2a 00 ${be(lba, 4)} 00 ${be(1 + random.below(9 - lba), 2)} 00`, {out: Buffer.alloc(9 * 512, 0xff)})
      await initiator.send(`28 00 ${be(lba, 4)} 00 0010 00`, {in: 16 * 512})
    }
  })
  await Promise.all(tries)
  over = true
  await Promise.all(noise)
  clearInterval(pump)
  t.equal(added, 120)
  t.equal(device.bytes.readUInt32BE(9 * 512), 120)
})

t.test('model: ORWRITE and WRITE at the same time lose no bit', async t => {
  const {a, join, device} = await serve()
  const b = await join('b')
  const random = seededRandom(t)
  device.mode = 'held'
  const pump = setInterval(() => device.release(held => [...held].sort(() => random.below(3) - 1), 1 + random.below(4)))
  const blocks = 8
  for (let round = 0; round < 30; round++) {
    device.bytes.fill(0, 0, blocks * 512)
    const patterns = Array.from({length: 6}, () => Buffer.alloc(blocks * 512, 1 << random.below(8)))
    const writes = patterns.map((pattern, index) => orWrite(index % 2 === 0 ? a : b, 0, blocks, pattern))
    const results = await Promise.all(writes)
    t.ok(results.every(({status}) => status === GOOD))
    const all = patterns.reduce((sum, pattern) => sum | pattern[0]!, 0)
    t.ok(device.bytes.subarray(0, blocks * 512).every(byte => byte === all))
    // Against a write of the same blocks: the outcome is one of the two orders, for each request as a whole.
    const [set, plain] = [Buffer.alloc(blocks * 512, 0x0f), Buffer.alloc(blocks * 512, 0x30)]
    const both = [() => orWrite(a, 0, blocks, set), () => b.send(`2a 00 ${be(0, 4)} 00 ${be(blocks, 2)} 00`, {out: plain})]
    if (random.oneIn(2)) both.reverse()
    await Promise.all(both.map(start => start()))
    const byte = device.bytes[0]!
    t.ok(byte === 0x30 || byte === 0x3f, `0x${byte.toString(16)}`)
    t.ok(device.bytes.subarray(0, blocks * 512).every(other => other === byte), 'nothing got in between')
  }
  clearInterval(pump)
})
