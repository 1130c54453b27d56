import t from 'tap'
import {CHECK, GOOD, be, serve} from '../support/served-disk.js'

const STANDARD =
  '00 00 06 02 5b 18 00 02' +
  Buffer.from('LONGHORN').toString('hex') +
  Buffer.from('VOLUME          ').toString('hex') +
  Buffer.from('0001').toString('hex') +
  '00'.repeat(22) +
  '00a0 0960 0460 04c0' +
  '00'.repeat(8 + 22)

const NAA = '39598f5d1b7a6657'

function plain(hex: string): string {
  return hex.replaceAll(' ', '')
}

t.test('standard data, byte for byte', async t => {
  const {a} = await serve()
  const {status, data} = await a.send('12 00 00 ffff 00')
  t.equal(status, GOOD)
  t.equal(data.toString('hex'), plain(STANDARD))
})

t.test('the allocation length truncates, also in the middle of a field', async t => {
  const {a} = await serve()
  for (const length of [0, 1, 5, 35, 36, 95, 96, 97, 0x100]) {
    const {status, data, transferLength} = await a.send(`12 00 00 ${be(length, 2)} 00`)
    t.equal(status, GOOD)
    t.equal(data.length, Math.min(length, 96))
    t.equal(transferLength, data.length)
  }
})

const PAGES: readonly (readonly [page: string, content: string])[] = [
  ['00', '00 80 83 86 87 8f b0 b1 b2'],
  ['86', '00 01 01' + '00'.repeat(57)],
  ['87', '3f ff 00 00'],
  [
    '8f',
    '0001 0008 07 83 01 00 84 02 00 03' +
      '0004 001c 00000000 0004 0010 00000240 00000000' + '00'.repeat(12) +
      '0008 0004 02 02 e4 00' +
      '8001 0020 00000004 00000004 01fffe00 09' + '00'.repeat(19),
  ],
  ['b0', '00 ff 0008 00010000 00000800 00000000 00100000 00000100 00000008 80000000 0000000000400000 00000100' + '00000008'.repeat(2) + '00'.repeat(8)],
  ['b1', '0001 00 40 01' + '00'.repeat(55)],
  ['b2', '00 c4 02 00'],
]

for (const [page, content] of PAGES) {
  t.test(`page ${page}h, byte for byte`, async t => {
    const {a} = await serve()
    const {status, data} = await a.send(`12 01 ${page} ffff 00`)
    const expected = plain(content)
    t.equal(status, GOOD)
    t.equal(data.toString('hex'), `00${page}${be(expected.length / 2, 2)}${expected}`)
  })
}

t.test('serial number and designators follow from the name', async t => {
  const {a} = await serve()
  const serial = (await a.send('12 01 80 00ff 00')).data
  t.match(serial.toString('latin1', 4), /^[0-9a-f]{32}$/)
  const {data} = await a.send('12 01 83 ffff 00')
  t.equal(data.readUInt16BE(2), data.length - 4)
  const designators: string[] = []
  for (let at = 4; at < data.length; at += 4 + data[at + 3]!) designators.push(data.toString('hex', at, at + 4 + data[at + 3]!))
  const name = (text: string): string => Buffer.from(text + '\0'.repeat(4 - (text.length % 4))).toString('hex')
  t.same(designators, [
    `01030008${NAA}`,
    `0201000b${Buffer.from('LONGHORNvol').toString('hex')}`,
    `03080018${name(`naa.${NAA.toUpperCase()}`)}`,
    '5194000400000001',
    '5195000400000001',
    `53980028${name('iqn.2019-10.io.longhorn:vol,t,0x0001')}`,
    `53a8001c${name('iqn.2019-10.io.longhorn:vol')}`,
  ])
  const again = await (await serve()).a.send('12 01 83 ffff 00')
  t.same(again.data, data, 'the same after a restart')
})

t.test('what is refused', async t => {
  const {a} = await serve()
  for (const [cdb, pointer] of [
    ['12 00 80 00ff 00', 'c00002'],
    ['12 01 b9 00ff 00', 'c00002'],
    ['12 02 00 00ff 00', 'c90001'],
    ['12 00 00 00ff 04', 'ca0005'],
    ['12 00 00 00ff 01', 'c80005'],
  ] as const) {
    const {status, sense, senseBytes} = await a.send(cdb)
    t.equal(status, CHECK)
    t.equal(sense, '5/24/00')
    t.equal(senseBytes.toString('hex', 15, 18), pointer, cdb)
  }
})

t.test('other logical units', async t => {
  const {a} = await serve()
  const controller = await a.send('12 00 00 00ff 00', {lun: 0})
  t.equal(controller.data.toString('hex', 0, 8), '0c0006025b000002')
  const designation = await a.send('12 01 83 00ff 00', {lun: 0})
  t.equal(designation.data.toString('hex', 0, 8), `0c83${designation.data.toString('hex', 2, 4)}01030008`)
  t.not(designation.data.toString('hex', 8, 16), NAA, 'the controller is not the disk')
  for (const lun of [2, 255, -1]) {
    const nobody = await a.send('12 00 00 00ff 00', {lun})
    t.equal(nobody.status, GOOD)
    t.equal(nobody.data[0], 0x7f)
    t.equal((await a.send('12 01 80 00ff 00', {lun})).sense, '5/24/00')
    t.equal((await a.send('00 00 00 00 00 00', {lun})).sense, '5/25/00')
    t.equal((await a.send('28 00 00000000 00 0001 00', {lun})).sense, '5/25/00')
    const sense = await a.send('03 00 00 00 ff 00', {lun})
    t.equal(sense.status, GOOD)
    t.equal(sense.data.toString('hex', 0, 18), '700005000000000a000000002500000000000000'.slice(0, 36))
  }
})

t.test('REPORT LUNS', async t => {
  const {a} = await serve()
  for (const lun of [0, 1]) {
    const {data} = await a.send('a0 00 00 000000 00000100 00 00', {lun})
    t.equal(data.toString('hex'), '0000001000000000' + '0000000000000000' + '0001000000000000')
  }
  t.equal((await a.send('a0 00 02 000000 00000100 00 00')).data.length, 24)
  t.equal((await a.send('a0 00 01 000000 00000100 00 00')).data.toString('hex'), '0000000000000000', 'no well-known units')
  t.equal((await a.send('a0 00 00 000000 00000010 00 00')).data.toString('hex'), '00000010000000000000000000000000')
  t.equal((await a.send('a0 00 00 000000 0000000f 00 00')).sense, '5/24/00')
  t.equal((await a.send('a0 00 03 000000 00000100 00 00')).sense, '5/24/00')
})
