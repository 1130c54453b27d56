import {randomFillSync} from 'node:crypto'
import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {GOOD, be, MiB, serve, type Initiator} from '../support/served-disk.js'
import type {Result} from '../support/fake-task.js'

const END = 16 * MiB / 512

function writeAtomic(a: Initiator, lba: number | bigint, blocks: number, {flags = 0, boundary = 0, out = Buffer.alloc(blocks * 512, 7)} = {}): Promise<Result> {
  return a.send(`9c ${be(flags, 1)} ${be(lba, 8)} ${be(boundary, 2)} ${be(blocks, 2)} 00 00`, {out})
}

t.test('one block of the volume is one request', async t => {
  const {a, device} = await serve()
  const data = randomFillSync(Buffer.alloc(4096))
  device.records = []
  const {status, transferLength} = await writeAtomic(a, 16, 8, {out: data})
  t.same([status, transferLength], [GOOD, 4096])
  t.same(device.records, [{op: OP.WRITE, offset: 8192, length: 4096, fua: false, noUnmap: false}])
  t.ok(device.bytes.subarray(8192, 8192 + 4096).equals(data))
  t.equal((await writeAtomic(a, 16, 8, {flags: 0x18})).status, GOOD)
  t.equal(device.dirty.size, 0, 'FUA')
  t.equal((await writeAtomic(a, END - 8, 8)).status, GOOD)
})

t.test('what is more than is promised', async t => {
  const {a, device} = await serve()
  device.records = []
  for (const [lba, blocks, field] of [[0, 264, 12], [0, 9, 12], [0, 4, 12], [0, 1, 12], [1, 8, 2], [4, 8, 2], [0, 4096, 12]] as const) {
    const {sense, senseBytes} = await writeAtomic(a, lba, blocks)
    t.same([sense, senseBytes.toString('hex', 15, 18)], ['5/24/00', `c0${be(field, 2)}`], `${blocks} blocks at ${lba}`)
  }
  t.equal((await writeAtomic(a, 0, 8, {boundary: 8})).sense, '5/24/00', 'a boundary')
  for (const flags of [0x20, 0x40, 0xe0]) t.equal((await writeAtomic(a, 0, 8, {flags})).sense, '5/24/00')
  for (const lba of [END, END - 4, 1n << 63n, (1n << 64n) - 8n]) t.equal((await writeAtomic(a, lba, 8)).sense, '5/21/00')
  t.equal((await writeAtomic(a, 0, 256)).status, GOOD)
  device.records = []
  t.equal((await writeAtomic(a, END - 256, 512)).sense, '5/21/00', 'the end comes before the limit')
  t.equal((await writeAtomic(a, END + 8, 0)).sense, '5/21/00')
  t.equal((await writeAtomic(a, 0, 0)).status, GOOD)
  t.equal((await writeAtomic(a, 0, 8, {out: Buffer.alloc(512)})).sense, '5/0e/03', 'data of another length')
  t.same(device.records, [])
})

t.test('nobody sees a part of it', async t => {
  const {a, join, device} = await serve()
  const b = await join('b')
  device.mode = 'held'
  const read = b.start('28 00 00000000 00 0008 00', {in: 4096})
  const write = a.start('9c 00 0000000000000000 0000 0008 00 00', {out: Buffer.alloc(4096, 7)})
  await new Promise(resolve => setImmediate(resolve))
  const after = b.start('28 00 00000007 00 0001 00', {in: 512})
  const other = b.start('28 00 00000008 00 0001 00', {in: 512})
  t.equal(device.held, 2, 'it waits for what came before, and holds up what comes after')
  device.mode = 'now'
  device.release()
  t.ok((await read.result).data.equals(Buffer.alloc(4096)))
  t.equal((await write.result).status, GOOD)
  t.ok((await after.result).data.equals(Buffer.alloc(512, 7)))
  t.equal((await other.result).status, GOOD)
})

t.test('one that is taken back before it began, and one that fails, change nothing', async t => {
  const {a, device} = await serve()
  device.records = []
  const task = a.start('9c 00 0000000000000000 0000 0008 00 00', {out: Buffer.alloc(4096, 7), late: true})
  task.abort()
  await task.result
  t.same(device.records, [])
  device.fault = ({op}) => (op === OP.WRITE ? ERRNO.EIO : 0)
  t.equal((await writeAtomic(a, 0, 8)).sense, '3/0c/00')
  t.ok(device.bytes.every(byte => byte === 0))
})
