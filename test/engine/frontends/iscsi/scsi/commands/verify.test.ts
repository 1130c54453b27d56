import {randomFillSync} from 'node:crypto'
import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {GOOD, be, MiB, serve} from '../support/served-disk.js'

const byte = (flags: number): string => be(flags, 1)
const VERIFY = [
  (lba: number, n: number, f: number) => `2f ${byte(f)} ${be(lba, 4)} 00 ${be(n, 2)} 00`,
  (lba: number, n: number, f: number) => `af ${byte(f)} ${be(lba, 4)} ${be(n, 4)} 00 00`,
  (lba: number, n: number, f: number) => `8f ${byte(f)} ${be(lba, 8)} ${be(n, 4)} 00 00`,
]
const WRITE_AND_VERIFY = [
  (lba: number, n: number, f: number) => `2e ${byte(f)} ${be(lba, 4)} 00 ${be(n, 2)} 00`,
  (lba: number, n: number, f: number) => `ae ${byte(f)} ${be(lba, 4)} ${be(n, 4)} 00 00`,
  (lba: number, n: number, f: number) => `8e ${byte(f)} ${be(lba, 8)} ${be(n, 4)} 00 00`,
]
const DATA = 0x02
const RESERVED = 0x04
const BLOCK = 0x06

t.test('VERIFY without data reads, and says what cannot be read', async t => {
  for (const verify of VERIFY) {
    const {a, device} = await serve()
    device.records = []
    t.equal((await a.send(verify(8, 600, 0))).status, GOOD)
    t.equal(device.records.reduce((sum, {op, length}) => sum + (op === OP.READ ? length : 0), 0), 600 * 512)
    t.equal((await a.send(verify(0, 0, 0))).status, GOOD)
    device.fault = ({offset}) => (offset >= 150_000 ? ERRNO.EIO : 0)
    const {sense, senseBytes} = await a.send(verify(0, 1024, 0))
    t.equal(sense, '3/11/00')
    t.equal(senseBytes.readUInt32BE(3) * 512, 2 * 131072, 'the first request that failed')
  }
})

t.test('VERIFY against data', async t => {
  for (const verify of VERIFY) {
    const {a, device} = await serve()
    device.mode = 'later'
    const data = randomFillSync(Buffer.alloc(600 * 512))
    data.copy(device.bytes, 7 * 512)
    t.equal((await a.send(verify(7, 600, DATA), {out: data, late: true})).status, GOOD)
    for (const wrong of [0, 1, 70_000, 131_072, data.length - 1]) {
      const other = Buffer.from(data)
      other[wrong]! ^= 1
      other[data.length - 1]! ^= 0x80
      const {sense, senseBytes} = await a.send(verify(7, 600, DATA), {out: other, late: true, pieceBytes: 100_000})
      t.equal(sense, 'e/1d/00')
      t.equal(senseBytes[0], 0xf0)
      t.equal(senseBytes.readUInt32BE(3), wrong, 'the first difference')
    }
  }
})

t.test('VERIFY of many blocks against one', async t => {
  for (const verify of VERIFY) {
    const {a, device} = await serve()
    const block = randomFillSync(Buffer.alloc(512))
    for (let index = 0; index < 600; index++) block.copy(device.bytes, (3 + index) * 512)
    t.equal((await a.send(verify(3, 600, BLOCK), {out: block})).status, GOOD)
    device.bytes[(3 + 500) * 512 + 77]! ^= 4
    const {sense, senseBytes} = await a.send(verify(3, 600, BLOCK), {out: block})
    t.equal(sense, 'e/1d/00')
    t.equal(senseBytes.readUInt32BE(3), 77)
    t.equal((await a.send(verify(3, 600, BLOCK), {out: Buffer.alloc(1024)})).sense, '5/0e/03')
  }
})

t.test('WRITE AND VERIFY writes, to the medium, and looks', async t => {
  for (const write of WRITE_AND_VERIFY) {
    for (const flags of [0, DATA]) {
      const {a, device} = await serve()
      const data = randomFillSync(Buffer.alloc(600 * 512))
      const {status, transferLength} = await a.send(write(9, 600, flags), {out: data, late: true})
      t.same([status, transferLength], [GOOD, data.length])
      t.ok(device.bytes.subarray(9 * 512, 609 * 512).equals(data))
      t.equal(device.dirty.size, 0)
      device.fault = ({op}) => (op === OP.READ ? ERRNO.EIO : 0)
      t.equal((await a.send(write(9, 600, flags), {out: data})).sense, '3/11/00')
      device.fault = ({op}) => (op === OP.WRITE ? ERRNO.ENOSPC : 0)
      t.equal((await a.send(write(9, 600, flags), {out: data})).sense, '7/27/07')
    }
  }
})

t.test('what is refused', async t => {
  const {a, device} = await serve()
  device.records = []
  const end = 16 * MiB / 512
  for (const form of [...VERIFY, ...WRITE_AND_VERIFY]) {
    t.equal((await a.send(form(0, 1, RESERVED))).sense, '5/24/00')
    t.equal((await a.send(form(0, 1, 0x20))).sense, '5/24/00')
    t.equal((await a.send(form(end, 1, 0))).sense, '5/21/00')
    t.equal((await a.send(form(end - 1, 2, DATA), {out: Buffer.alloc(1024)})).sense, '5/21/00')
    t.equal((await a.send(form(end + 1, 0, 0))).sense, '5/21/00')
  }
  for (const write of WRITE_AND_VERIFY) t.equal((await a.send(write(0, 1, BLOCK), {out: Buffer.alloc(512)})).sense, '5/24/00')
  for (const verify of VERIFY) t.equal((await a.send(verify(0, 2, DATA), {out: Buffer.alloc(512)})).sense, '5/0e/03')
  t.same(device.records, [])
})
