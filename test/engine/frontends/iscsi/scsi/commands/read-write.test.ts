import {randomFillSync} from 'node:crypto'
import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {GOOD, be, hex, MiB, serve} from '../support/served-disk.js'

interface Form {
  readonly name: string
  read(lba: number | bigint, blocks: number, flags?: number): string
  write(lba: number | bigint, blocks: number, flags?: number): string
}

const flag = (flags: number): string => be(flags, 1)
const FORMS: readonly Form[] = [
  {name: '10', read: (lba, n, f = 0) => `28 ${flag(f)} ${be(lba, 4)} 00 ${be(n, 2)} 00`, write: (lba, n, f = 0) => `2a ${flag(f)} ${be(lba, 4)} 00 ${be(n, 2)} 00`},
  {name: '12', read: (lba, n, f = 0) => `a8 ${flag(f)} ${be(lba, 4)} ${be(n, 4)} 00 00`, write: (lba, n, f = 0) => `aa ${flag(f)} ${be(lba, 4)} ${be(n, 4)} 00 00`},
  {name: '16', read: (lba, n, f = 0) => `88 ${flag(f)} ${be(lba, 8)} ${be(n, 4)} 00 00`, write: (lba, n, f = 0) => `8a ${flag(f)} ${be(lba, 8)} ${be(n, 4)} 00 00`},
]
const SIX: Form = {name: '6', read: (lba, n) => `08 ${be(lba, 3)} ${be(n, 1)} 00`, write: (lba, n) => `0a ${be(lba, 3)} ${be(n, 1)} 00`}
const BLOCKS = 16 * MiB / 512

for (const form of [SIX, ...FORMS]) {
  t.test(`WRITE(${form.name}) and READ(${form.name})`, async t => {
    for (const late of [false, true]) {
      const {a, device} = await serve()
      device.mode = late ? 'later' : 'now'
      for (const [lba, blocks] of [[0, 1], [7, 9], [BLOCKS - 3, 3], [11, 255]] as const) {
        const data = randomFillSync(Buffer.alloc(blocks * 512))
        const written = await a.send(form.write(lba, blocks), {out: data, late, pieceBytes: 4096})
        t.equal(written.status, GOOD)
        t.equal(written.transferLength, data.length)
        t.ok(device.bytes.subarray(lba * 512, lba * 512 + data.length).equals(data))
        const read = await a.send(form.read(lba, blocks), {in: data.length})
        t.equal(read.status, GOOD)
        t.ok(read.data.equals(data))
        t.equal(read.transferLength, data.length)
      }
    }
  })

  t.test(`(${form.name}): what is beyond the end`, async t => {
    const {a, device} = await serve()
    device.records = []
    for (const [lba, blocks] of [[BLOCKS, 1], [BLOCKS - 1, 2], [BLOCKS + 1, 0]] as const) {
      if (form === SIX && blocks === 0) continue
      t.equal((await a.send(form.read(lba, blocks))).sense, '5/21/00')
      t.equal((await a.send(form.write(lba, blocks), {out: Buffer.alloc(blocks * 512)})).sense, '5/21/00')
    }
    t.same(device.records, [])
  })
}

t.test('a length of 0: of (6) it means 256, of the others nothing', async t => {
  const {a, device} = await serve()
  device.bytes.fill(7)
  t.equal((await a.send(SIX.read(0, 0), {in: 256 * 512})).data.length, 256 * 512)
  device.records = []
  for (const form of FORMS) {
    for (const lba of [0, BLOCKS]) {
      const read = await a.send(form.read(lba, 0))
      t.same([read.status, read.data.length, read.transferLength], [GOOD, 0, 0])
      t.equal((await a.send(form.write(lba, 0))).status, GOOD)
    }
  }
  t.same(device.records, [])
})

t.test('addresses beyond what a number holds exactly', async t => {
  const {a} = await serve()
  for (const lba of [1n << 63n, (1n << 64n) - 1n, 1n << 53n, (1n << 32n) * 512n]) {
    t.equal((await a.send(FORMS[2]!.read(lba, 1))).sense, '5/21/00')
    t.equal((await a.send(FORMS[2]!.read(lba, 0xffffffff))).sense, '5/21/00')
  }
})

t.test('more than the block limits allow', async t => {
  const {a} = await serve(64 * MiB)
  const most = 65536
  t.equal((await a.send(FORMS[2]!.read(0, most), {in: most * 512})).data.length, 32 * MiB)
  for (const cdb of [FORMS[2]!.read(0, most + 1), FORMS[1]!.read(0, most + 1), FORMS[2]!.write(0, most + 1)]) {
    const {sense, senseBytes} = await a.send(cdb)
    t.equal(sense, '5/24/00')
    const at = {0x88: 10, 0xa8: 6, 0x8a: 10}[hex(cdb)[0]!]!
    t.equal(senseBytes.toString('hex', 15, 18), `c0${be(at, 2)}`)
  }
})

t.test('protection information is refused, DPO and group numbers are not', async t => {
  const {a} = await serve()
  for (const form of FORMS) {
    for (const flags of [0x20, 0x40, 0x60, 0x80, 0xa0, 0xe0]) {
      const {sense, senseBytes} = await a.send(form.read(0, 1, flags))
      t.equal(sense, '5/24/00')
      t.equal(senseBytes.toString('hex', 15, 18), 'cf0001')
      t.equal((await a.send(form.write(0, 1, flags), {out: Buffer.alloc(512)})).sense, '5/24/00')
    }
    t.equal((await a.send(form.read(0, 1, 0x10))).status, GOOD)
    t.equal((await a.send(form.write(0, 1, 0x10), {out: Buffer.alloc(512)})).status, GOOD)
  }
  t.equal((await a.send('28 00 00000000 1f 0001 00')).status, GOOD)
  t.equal((await a.send('28 00 00000000 20 0001 00')).sense, '5/24/00')
  t.equal((await a.send('28 00 00000000 00 0001 04')).sense, '5/24/00', 'NACA')
  t.equal((await a.send('28 00 00000000 00 0001 01')).sense, '5/24/00', 'LINK')
})

t.test('FUA: what was written is on the medium, and what is read is', async t => {
  const {a, device} = await serve()
  const [ten, , sixteen] = FORMS
  await a.send(ten!.write(0, 8, 0x08), {out: Buffer.alloc(4096, 1)})
  t.equal(device.dirty.size, 0)
  await a.send(sixteen!.write(0, 4096, 0x08), {out: Buffer.alloc(2 * MiB, 1), late: true})
  t.equal(device.dirty.size, 0, 'in pieces')
  await a.send(ten!.write(0, 8), {out: Buffer.alloc(4096, 1)})
  t.equal(device.dirty.size, 1)
  device.records = []
  t.equal((await a.send(ten!.read(0, 8, 0x08))).status, GOOD)
  t.same(device.records.map(({op}) => op), [OP.FLUSH, OP.READ])
  t.equal(device.dirty.size, 0)
})

t.test('large transfers are cut, and only so much of them is with the device', async t => {
  const {a, device} = await serve(64 * MiB)
  device.mode = 'later'
  device.records = []
  const {data} = await a.send(FORMS[2]!.read(3, 20000), {in: 20000 * 512})
  t.equal(data.length, 20000 * 512)
  t.equal(device.mostInFlight, 16)
  t.equal(device.records[0]!.length % 4096, 4096 - 3 * 512, 'cuts are at blocks of the volume')
  t.ok(device.records.slice(1).every(({offset}) => offset % 4096 === 0))
})

t.test('an initiator that takes or sends less, or more', async t => {
  const {a, device} = await serve()
  device.bytes.fill(9)
  device.records = []
  const short = await a.send(FORMS[0]!.read(0, 100), {in: 1000})
  t.same([short.status, short.data.length, short.transferLength], [GOOD, 1000, 51200])
  t.equal(device.records[0]!.length, 1024, 'only what is taken is read')
  const none = await a.send(FORMS[0]!.read(0, 1), {in: 0})
  t.same([none.status, none.data.length, none.transferLength], [GOOD, 0, 512])
  for (const [length, written] of [[0, 0], [200, 200], [512, 512], [2048, 1024]] as const) {
    device.bytes.fill(0)
    const result = await a.send(FORMS[0]!.write(0, 2), {out: Buffer.alloc(length, 5)})
    t.same([result.status, result.transferLength], [GOOD, 1024])
    t.equal(device.bytes.lastIndexOf(5) + 1, written)
  }
})

t.test('errors of the device have names', async t => {
  for (const [errno, reading, writing] of [
    [ERRNO.EIO, '3/11/00', '3/0c/00'],
    [ERRNO.ENOSPC, '7/27/07', '7/27/07'],
    [ERRNO.ESHUTDOWN, '2/04/00', '2/04/00'],
    [ERRNO.EINVAL, '5/21/00', '5/21/00'],
    [71, '3/11/00', '3/0c/00'],
  ] as const) {
    const {a, device} = await serve()
    device.fault = () => errno
    t.equal((await a.send(FORMS[0]!.read(0, 1))).sense, reading)
    t.equal((await a.send(FORMS[0]!.write(0, 1), {out: Buffer.alloc(512)})).sense, writing)
  }
})

t.test('a read that fails in the middle tells where, and has sent what is before', async t => {
  for (const order of ['up', 'down'] as const) {
    const {a, device} = await serve()
    device.bytes.fill(3)
    device.mode = 'held'
    device.fault = ({offset}) => (offset >= MiB && offset < MiB + 300_000 ? ERRNO.EIO : 0)
    const task = a.start(FORMS[2]!.read(0, 4096), {in: 2 * MiB})
    while (task.finished === 0) device.release(held => (order === 'up' ? held : [...held].reverse()))
    const {sense, senseBytes, data, transferLength} = await task.result
    t.equal(sense, '3/11/00')
    t.equal(senseBytes[0], 0xf0)
    t.equal(senseBytes.readUInt32BE(3), MiB / 512)
    t.equal(transferLength, MiB)
    t.ok(data.subarray(0, MiB).every(byte => byte === 3))
  }
})

t.test('a full volume: rewriting goes on, a failed flush is a failed write', async t => {
  const {a, device} = await serve()
  await a.send(FORMS[0]!.write(0, 8), {out: Buffer.alloc(4096, 1)})
  device.full = true
  t.equal((await a.send(FORMS[0]!.write(0, 8), {out: Buffer.alloc(4096, 2)})).status, GOOD)
  t.equal((await a.send(FORMS[0]!.write(8, 8), {out: Buffer.alloc(4096, 2)})).sense, '7/27/07')
  device.full = false
  device.fault = ({op}) => (op === OP.FLUSH ? ERRNO.EIO : 0)
  t.equal((await a.send(FORMS[2]!.write(0, 4096, 8), {out: Buffer.alloc(2 * MiB), late: true})).sense, '3/0c/00')
  t.equal((await a.send(FORMS[2]!.read(0, 1, 8))).sense, '3/11/00')
})

t.test('commands that are taken back end when the device is done with them', async t => {
  const {a, device} = await serve()
  device.mode = 'held'
  const read = a.start(FORMS[2]!.read(0, 16384), {in: 8 * MiB})
  const write = a.start(FORMS[2]!.write(0, 4096, 8), {out: Buffer.alloc(2 * MiB), late: true})
  await new Promise(resolve => setImmediate(resolve))
  read.abort()
  write.abort()
  t.same([read.finished, write.finished], [0, 0])
  device.mode = 'now'
  device.release()
  await Promise.all([read.result, write.result])
  t.same([read.finished, write.finished], [1, 1])
  t.equal(device.held, 0)
  t.equal(device.mostInFlight, 17, 'nothing was submitted after that')
})

t.test('ORDERED and HEAD OF QUEUE are served like SIMPLE, ACA is refused', async t => {
  const {a} = await serve()
  for (const attribute of ['ordered', 'head-of-queue', 'untagged'] as const) {
    t.equal((await a.send('00 00 00 00 00 00', {attribute})).status, GOOD)
  }
  t.equal((await a.send('00 00 00 00 00 00', {attribute: 'aca'})).sense, '5/49/00')
})
