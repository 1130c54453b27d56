import t from 'tap'
import {CHECK, GOOD, hex, serve, type Initiator} from '../support/served-disk.js'

const CACHING = '0812040000000000000000000000000000000000'
const CONTROL = '0a0a02100040000000000000'
const RECOVERY = '010a00000000000000000000'
const EXCEPTIONS = '1c0a08000000000000000000'
const ALL = RECOVERY + CACHING + CONTROL + EXCEPTIONS
const SHORT = '0000800000000200'

/** A control page with these bits. */
function control({dSense = false, swp = false} = {}): string {
  return `0a0a${dSense ? '06' : '02'}10${swp ? '08' : '00'}40000000000000`
}

function select6(a: Initiator, list: string, flags = '10'): ReturnType<Initiator['send']> {
  const out = hex(list)
  return a.send(`15 ${flags} 00 00 ${out.length.toString(16).padStart(2, '0')} 00`, {out})
}

t.test('MODE SENSE(6), byte for byte', async t => {
  const {a} = await serve()
  for (const [cdb, expected] of [
    ['1a 00 3f 00 ff 00', `43001008${SHORT}${ALL}`],
    ['1a 08 3f 00 ff 00', `3b001000${ALL}`],
    ['1a 08 3f ff ff 00', `3b001000${ALL}`],
    ['1a 08 08 00 ff 00', `17001000${CACHING}`],
    ['1a 08 0a 00 ff 00', `0f001000${CONTROL}`],
    ['1a 08 4a 00 ff 00', '0f001000' + '0a0a00000000000000000000'.replace(/^(.{4})../, '$104').replace(/^(.{8})../, '$108')],
    ['1a 08 48 00 ff 00', `17001000${'0812'.padEnd(40, '0')}`],
    ['1a 08 8a 00 ff 00', `0f001000${CONTROL}`],
    ['1a 08 0a 00 06 00', '0f0010000a0a'],
    ['1a 08 0a 00 00 00', ''],
  ] as const) {
    const {status, data} = await a.send(cdb)
    t.equal(status, GOOD)
    t.equal(data.toString('hex'), expected, cdb)
  }
})

t.test('MODE SENSE(10), byte for byte', async t => {
  const {a} = await serve()
  for (const [cdb, expected] of [
    ['5a 00 3f 00 000000 ffff 00', `0046001000000008${SHORT}${ALL}`],
    ['5a 10 0a 00 000000 ffff 00', '00220010010000100000000000008000' + `0000000000000200${CONTROL}`],
    ['5a 18 0a 00 000000 ffff 00', `0012001000000000${CONTROL}`],
    ['5a 08 0a 00 000000 0009 00', '00120010000000000a'],
  ] as const) {
    t.equal((await a.send(cdb)).data.toString('hex'), expected, cdb)
  }
})

t.test('MODE SENSE: what is refused', async t => {
  const {a} = await serve()
  for (const [cdb, sense, pointer] of [
    ['1a 08 ca 00 ff 00', '5/39/00', '000000'],
    ['1a 08 02 00 ff 00', '5/24/00', 'cd0002'],
    ['1a 08 0a 01 ff 00', '5/24/00', 'c00003'],
    ['5a 08 3f 02 000000 ffff 00', '5/24/00', 'c00003'],
    ['1a 48 0a 00 ff 00', '5/24/00', 'ce0001'],
  ] as const) {
    const result = await a.send(cdb)
    t.same([result.status, result.sense, result.senseBytes.toString('hex', 15, 18)], [CHECK, sense, pointer], cdb)
  }
})

t.test('SWP: writing is refused until it is taken back, and others are told', async t => {
  const {a, join, device} = await serve()
  const b = await join('b')
  t.equal((await select6(a, `00000000${control({swp: true})}`)).status, GOOD)
  t.same(await a.attentions(), [])
  t.same(await b.attentions(), ['6/2a/01'])
  device.records = []
  const block = Buffer.alloc(512)
  for (const [cdb, out] of [
    ['0a 00 00 00 01 00', block],
    ['2a 00 00000000 00 0001 00', block],
    ['aa 00 00000000 00000001 00 00', block],
    ['8a 00 0000000000000000 00000001 00 00', block],
    ['2e 00 00000000 00 0001 00', block],
    ['41 00 00000000 00 0001 00', block],
    ['93 00 0000000000000000 00000001 00 00', block],
    ['42 00 00000000 00 0018 00', hex('0016 0010 00000000 0000000000000000 00000001 00000000')],
    ['89 00 0000000000000000 000000 01 00 00', Buffer.alloc(1024)],
    ['8b 00 0000000000000000 00000001 00 00', block],
    ['48 02 00 00 00 00 00 0000 00', Buffer.alloc(0)],
    ['83 00 0000000000000000 00000000 00 00', Buffer.alloc(0)],
  ] as const) {
    t.equal((await b.send(cdb, {out})).sense, '7/27/02', cdb)
  }
  t.same(device.records, [])
  t.equal((await b.send('28 00 00000000 00 0001 00')).status, GOOD)
  t.equal((await b.send('35 00 00000000 00 0000 00')).status, GOOD)
  t.equal((await b.send('1a 08 0a 00 ff 00')).data.toString('hex'), `0f009000${control({swp: true})}`, 'and the header says so')
  t.equal((await b.send('1a 08 8a 00 ff 00')).data.toString('hex', 4), CONTROL, 'the default stays')
  t.equal((await select6(b, `00000000${control()}`)).status, GOOD)
  t.same(await a.attentions(), ['6/2a/01'])
  t.equal((await a.send('2a 00 00000000 00 0001 00', {out: block})).status, GOOD)
})

t.test('D_SENSE: sense data in descriptor format', async t => {
  const {a} = await serve()
  t.equal((await select6(a, `00000000${control({dSense: true})}`)).status, GOOD)
  const {sense, senseBytes} = await a.send('28 00 ffffffff 00 0001 00')
  t.equal(sense, '5/21/00')
  t.equal(senseBytes[0], 0x72)
})

t.test('a reset brings the defaults back', async t => {
  const {a, server} = await serve()
  await select6(a, `00000000${control({swp: true, dSense: true})}`)
  server.reset(a.nexus, 1)
  t.same(await a.attentions(), ['6/29/03'])
  t.equal((await a.send('1a 08 0a 00 ff 00')).data.toString('hex'), `0f001000${CONTROL}`)
})

t.test('MODE SELECT: what changes nothing is good and told to nobody', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  for (const list of ['00000000', `00000008${SHORT}`, `0000000800000000 00000200`, '00000008ffffffff00000200', `00000008${SHORT}${ALL}`, `00000000${CONTROL}${CACHING}`, '']) {
    t.equal((await select6(a, list)).status, GOOD, list)
  }
  const long = hex('00000000 0100 0010 0000000000008000 00000000 00000200', CONTROL)
  t.equal((await a.send(`55 10 00 00000000 00${long.length.toString(16)} 00`, {out: long})).status, GOOD)
  t.same(await b.attentions(), [])
})

t.test('MODE SELECT: what is refused, and where', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  for (const [list, sense, pointer] of [
    ['000000', '5/1a/00', undefined],
    [`00000000${CONTROL.slice(0, 20)}`, '5/1a/00', undefined],
    ['000000000a', '5/1a/00', undefined],
    ['0000000800000000', '5/1a/00', undefined],
    [`00000004${SHORT}`, '5/26/00', '800003'],
    ['0000000800000001 00000200', '5/26/00', '800004'],
    ['0000000800000000 00001000', '5/26/00', '800008'],
    ['00000000 0200', '5/26/00', '8d0004'],
    [`00000000 4a${CONTROL.slice(2)}`, '5/26/00', '8e0004'],
    ['00000000 0a09021000400000000000', '5/26/00', '800005'],
    ['00000000 0a0a02100000000000000000', '5/26/00', '8e0009'],
    ['00000000 0a0a02110040000000000000', '5/26/00', '880007'],
    [`00000000${control({swp: true})}${CACHING.replace('04', '00')}`, '5/26/00', '8a0012'],
  ] as const) {
    const result = await select6(a, list)
    t.equal(result.sense, sense, list)
    if (pointer !== undefined) t.equal(result.senseBytes.toString('hex', 15, 18), pointer, list)
  }
  t.equal((await select6(a, '00000000', '11')).sense, '5/24/00', 'nothing can be saved')
  t.equal((await select6(a, '00000000', '00')).sense, '5/24/00', 'PF')
  t.same(await b.attentions(), [], 'nothing was changed, not even in part')
})

t.test('MODE SELECT of which not everything arrives', async t => {
  const {a} = await serve()
  t.equal((await a.send('15 10 00 00 10 00', {out: hex('00000000')})).sense, '5/1a/00')
})
