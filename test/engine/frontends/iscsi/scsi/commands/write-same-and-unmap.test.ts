import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {GOOD, be, hex, MiB, serve, serveDevice, type Initiator} from '../support/served-disk.js'

const END = 16 * MiB / 512

function same16(a: Initiator, lba: number | bigint, blocks: number, flags: number, out: Buffer): ReturnType<Initiator['send']> {
  return a.send(`93 ${be(flags, 1)} ${be(lba, 8)} ${be(blocks, 4)} 00 00`, {out})
}

function unmap(a: Initiator, ranges: readonly (readonly [lba: number | bigint, blocks: number])[], flags = 0): ReturnType<Initiator['send']> {
  const descriptors = ranges.map(([lba, blocks]) => be(lba, 8) + be(blocks, 4) + '00000000').join('')
  const out = hex(be(6 + descriptors.length / 2, 2), be(descriptors.length / 2, 2), '00000000', descriptors)
  return a.send(`42 ${be(flags, 1)} 00000000 00 ${be(out.length, 2)} 00`, {out})
}

const ZERO = Buffer.alloc(512)
const BLOCK = Buffer.alloc(512, 'longhorn')
const UNMAP = 0x08
const NDOB = 0x01

t.test('WRITE SAME writes one block many times', async t => {
  const {a, device} = await serve()
  device.bytes.fill(9)
  for (const [lba, blocks] of [[0, 1], [7, 601], [END - 5, 5]] as const) {
    t.equal((await same16(a, lba, blocks, 0, BLOCK)).status, GOOD)
    for (let index = 0; index < blocks; index++) {
      if (!device.bytes.subarray((lba + index) * 512, (lba + index + 1) * 512).equals(BLOCK)) t.fail(`block ${index}`)
    }
  }
  t.equal(device.bytes[(7 + 601) * 512], 9)
  t.equal((await a.send(`41 00 ${be(100, 4)} 00 0003 00`, {out: ZERO})).status, GOOD)
  t.ok(device.bytes.subarray(100 * 512, 103 * 512).every(byte => byte === 0))
})

t.test('zeros are not sent around; with UNMAP their space is given back', async t => {
  const {a, device} = await serve()
  device.records = []
  await same16(a, 8, 1024, 0, ZERO)
  await same16(a, 8, 1024, UNMAP, ZERO)
  await same16(a, 8, 1024, NDOB, Buffer.alloc(0))
  await same16(a, 8, 1024, NDOB | UNMAP, Buffer.alloc(0))
  const request = {op: OP.WRITE_ZEROES, offset: 4096, length: 524288, fua: false}
  t.same(device.records, [true, false, true, false].map(noUnmap => ({...request, noUnmap})))
})

t.test('data that is not zero is written also with UNMAP', async t => {
  const {a, device} = await serve()
  await same16(a, 8, 16, UNMAP, BLOCK)
  t.ok(device.bytes.subarray(8 * 512, 9 * 512).equals(BLOCK))
})

t.test('a length of 0 is up to the end', async t => {
  const {a, device} = await serve()
  device.bytes.fill(9)
  t.equal((await same16(a, END - 100, 0, UNMAP, ZERO)).status, GOOD)
  t.equal(device.bytes.lastIndexOf(9), (END - 100) * 512 - 1)
  t.equal((await a.send(`41 00 ${be(END - 200, 4)} 00 0000 00`, {out: ZERO})).status, GOOD)
  t.equal(device.bytes.lastIndexOf(9), (END - 200) * 512 - 1)
  t.equal((await same16(a, END, 0, 0, ZERO)).status, GOOD, 'of which there is nothing here')
})

t.test('WRITE SAME: what is refused', async t => {
  const {a, device} = await serve(16 * MiB)
  device.records = []
  t.equal((await same16(a, END, 1, 0, ZERO)).sense, '5/21/00')
  t.equal((await same16(a, END + 1, 0, 0, ZERO)).sense, '5/21/00')
  t.equal((await same16(a, (1n << 64n) - 1n, 1, 0, ZERO)).sense, '5/21/00')
  t.equal((await same16(a, 0, 1, 0x10, ZERO)).sense, '5/24/00', 'ANCHOR')
  t.equal((await same16(a, 0, 1, 0x18, ZERO)).sense, '5/24/00')
  t.equal((await same16(a, 0, 1, 0x20, ZERO)).sense, '5/24/00', 'WRPROTECT')
  t.equal((await same16(a, 0, 1, 0x02, ZERO)).sense, '5/24/00', 'LBDATA')
  t.equal((await a.send('41 08 00000000 00 0001 00', {out: ZERO})).sense, '5/24/00', 'UNMAP of (10)')
  for (const length of [0, 256, 511, 513, 1024]) t.equal((await same16(a, 0, 1, 0, Buffer.alloc(length))).sense, '5/0e/03')
  t.equal((await same16(a, 0, 1, NDOB, ZERO)).sense, '5/0e/03')
  t.same(device.records, [])
})

t.test('WRITE SAME of more than is allowed', async t => {
  const device = {sizeBytes: 1024 ** 4, submit: () => t.fail('it got through'), blockStatus: () => Promise.resolve([])}
  const {a} = await serveDevice(device, undefined)
  const most = 4 * 1024 * 1024
  t.equal((await same16(a, 0, most + 1, 0, ZERO)).sense, '5/24/00')
  t.equal((await same16(a, 0, 0, 0, ZERO)).sense, '5/24/00')
  t.equal((await unmap(a, [[0, 1024 * 1024 + 1]])).sense, '5/26/00')
  t.equal((await unmap(a, [[0, 1024 * 1024], [2 ** 21, 1]])).sense, '5/26/00')
})

t.test('UNMAP makes zeros and gives space back', async t => {
  const {a, device} = await serve()
  device.bytes.fill(9)
  device.records = []
  const {status, transferLength} = await unmap(a, [[8, 16], [100, 0], [END - 8, 8], [3, 2]])
  t.same([status, transferLength], [GOOD, 8 + 64])
  t.same(
    device.records.map(({op, offset, length, noUnmap}) => [op, offset, length, noUnmap]),
    [[8, 16], [END - 8, 8], [3, 2]].map(([lba, blocks]) => [OP.WRITE_ZEROES, lba! * 512, blocks! * 512, false]),
  )
  t.equal(device.bytes.subarray(0, 20 * 512).lastIndexOf(9), 8 * 512 - 1)
})

t.test('UNMAP of nothing', async t => {
  const {a, device} = await serve()
  device.records = []
  t.equal((await unmap(a, [])).status, GOOD)
  t.equal((await unmap(a, [[END, 0]])).status, GOOD)
  t.equal((await a.send('42 00 00000000 00 0000 00')).status, GOOD)
  t.equal((await a.send('42 00 00000000 00 0017 00', {out: hex('0015 0010 00000000 0000000000000000 00000001 000000')})).status, GOOD, 'a descriptor that is cut off')
  t.same(device.records, [])
})

t.test('UNMAP: what is refused, before anything is unmapped', async t => {
  const {a, device} = await serve()
  device.records = []
  t.equal((await unmap(a, [[0, 1], [END, 1]])).sense, '5/21/00')
  t.equal((await unmap(a, [[0, 1], [(1n << 64n) - 1n, 2]])).sense, '5/21/00')
  t.equal((await unmap(a, [[0, 1]], 1)).sense, '5/24/00', 'ANCHOR')
  t.equal((await unmap(a, Array.from({length: 257}, () => [0, 0] as const))).sense, '5/26/00')
  t.equal((await unmap(a, Array.from({length: 256}, () => [0, 0] as const))).status, GOOD)
  t.equal((await a.send('42 00 00000000 00 0007 00', {out: Buffer.alloc(7)})).sense, '5/1a/00')
  t.equal((await a.send('42 00 00000000 00 0018 00', {out: Buffer.alloc(8)})).sense, '5/1a/00', 'not all of it arrives')
  t.same(device.records, [])
})

t.test('what the device refuses', async t => {
  const {a, device} = await serve()
  device.fault = ({op}) => (op === OP.WRITE_ZEROES || op === OP.WRITE ? ERRNO.ENOSPC : 0)
  t.equal((await unmap(a, [[0, 8]])).sense, '7/27/07')
  t.equal((await same16(a, 0, 8, 0, ZERO)).sense, '7/27/07')
  t.equal((await same16(a, 0, 8, 0, BLOCK)).sense, '7/27/07')
})
