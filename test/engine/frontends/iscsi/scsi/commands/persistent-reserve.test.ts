import t from 'tap'
import {CHECK, CONFLICT, GOOD, MiB, MemoryStore, be, hex, serve, serveDevice, type Initiator} from '../support/served-disk.js'
import type {Result} from '../support/fake-task.js'
import {MemoryDevice} from '../../../../support/memory-device.js'

const REGISTER = 0
const RESERVE = 1
const RELEASE = 2
const CLEAR = 3
const PREEMPT = 4
const PREEMPT_AND_ABORT = 5
const REGISTER_AND_IGNORE = 6

interface Out {
  readonly key?: number
  readonly next?: number
  readonly type?: number
  readonly flags?: number
}

function out(initiator: Initiator, action: number, {key = 0, next = 0, type = 0, flags = 0}: Out): Promise<Result> {
  return initiator.send(`5f ${be(action, 1)} ${be(type, 1)} 00 00 00000018 00`, {out: hex(be(key, 8), be(next, 8), '00000000', be(flags, 1), '000000')})
}

async function read(initiator: Initiator, action: number, length = 0xffff): Promise<string> {
  return (await initiator.send(`5e ${be(action, 1)} 00 00 00 00 00 ${be(length, 2)} 00`)).data.toString('hex')
}

t.test('READ KEYS, READ RESERVATION, REPORT CAPABILITIES, byte for byte', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  t.equal(await read(a, 0), '0000000000000000')
  t.equal(await read(a, 1), '0000000000000000')
  t.equal(await read(a, 2), '000811' + '90' + 'ea01' + '0000')
  await out(a, REGISTER, {next: 0xa1})
  await out(b, REGISTER, {next: 0xb1})
  t.equal(await read(a, 0), `0000000200000010${be(0xa1, 8)}${be(0xb1, 8)}`)
  t.equal(await read(a, 0, 12), '000000020000001000000000', 'the length is that of the whole list')
  t.equal((await out(a, RESERVE, {key: 0xa1, type: 5})).status, GOOD)
  t.equal(await read(b, 1), `0000000200000010${be(0xa1, 8)}00000000` + '00050000', 'reserving does not count')
  await out(a, RELEASE, {key: 0xa1, type: 5})
  t.same(await b.attentions(), ['6/2a/04'])
  await out(b, RESERVE, {key: 0xb1, type: 7})
  t.equal(await read(b, 1), `0000000200000010${be(0, 8)}00000000` + '00070000', 'all registrants: no key')
})

t.test('READ FULL STATUS, byte for byte', async t => {
  const {a, join} = await serve()
  const b = await join('bb')
  await out(a, REGISTER, {next: 0xa1})
  await out(b, REGISTER, {next: 0xb1})
  await out(b, RESERVE, {key: 0xb1, type: 3})
  const id = (name: string, isid: string): string => {
    const text = Buffer.from(`iqn.2026-01.test:${name},i,0x${isid}`)
    const padded = Buffer.concat([text, Buffer.alloc(4 - (text.length % 4))])
    return `4500${be(padded.length, 2)}${padded.toString('hex')}`
  }
  const [idA, idB] = [id('a', '801234560061'), id('bb', '801234560062')]
  const descriptor = (key: number, holder: string, transportId: string): string =>
    `${be(key, 8)}00000000${holder}000000000001${be(transportId.length / 2, 4)}${transportId}`
  const expected = descriptor(0xa1, '0000', idA) + descriptor(0xb1, '0103', idB)
  t.equal(await read(a, 3), `00000002${be(expected.length / 2, 4)}${expected}`)
})

t.test('REGISTER', async t => {
  const {a, store} = await serve()
  t.equal((await out(a, REGISTER, {key: 5, next: 1})).status, CONFLICT, 'not registered, and yet a key')
  t.equal((await out(a, REGISTER, {})).status, GOOD, 'nothing to do')
  t.equal(await read(a, 0), '0000000000000000')
  t.equal((await out(a, REGISTER, {next: 1})).status, GOOD)
  t.equal((await out(a, REGISTER, {next: 2})).status, CONFLICT, 'the old key is missing')
  t.equal((await out(a, REGISTER, {key: 1, next: 2})).status, GOOD)
  t.equal((await out(a, REGISTER_AND_IGNORE, {key: 99, next: 3})).status, GOOD)
  t.equal(await read(a, 0), `0000000300000008${be(3, 8)}`)
  t.equal((await out(a, REGISTER, {key: 3})).status, GOOD)
  t.equal(await read(a, 0), '0000000400000000')
  t.equal((await out(a, REGISTER_AND_IGNORE, {})).status, GOOD)
  t.equal(await read(a, 0), '0000000400000000')
  t.equal(store.saves, 0)
})

t.test('what is refused', async t => {
  const {a} = await serve()
  for (const flags of [0x08, 0x04, 0x0c]) t.equal((await out(a, REGISTER, {next: 1, flags})).sense, '5/26/00')
  for (const length of [0, 23, 25, 0x10000]) {
    const {sense} = await a.send(`5f 00 00 00 00 ${be(length, 4)} 00`, {out: Buffer.alloc(length)})
    t.equal(sense, '5/1a/00')
  }
  t.equal((await a.send('5f 00 00 00 00 00000018 00', {out: Buffer.alloc(20)})).sense, '5/1a/00')
  for (const action of [4, 0x1f]) t.equal((await a.send(`5e ${be(action, 1)} 00 00 00 00 00 0100 00`)).sense, '5/24/00')
  for (const action of [7, 8, 0x1f]) t.equal((await out(a, action, {next: 1})).sense, '5/24/00')
  for (const action of [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT]) t.equal((await out(a, action, {key: 1, next: 1, type: 1})).status, CONFLICT, 'not registered')
  await out(a, REGISTER, {next: 1})
  for (const action of [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT]) t.equal((await out(a, action, {key: 2, next: 1, type: 1})).status, CONFLICT, 'another key')
  for (const type of [0, 2, 4, 9, 0xf, 0x11, 0x21]) t.equal((await out(a, RESERVE, {key: 1, type})).sense, '5/24/00')
  const {a: unsaved} = await serveDevice(new MemoryDevice(MiB), undefined)
  t.equal((await out(unsaved, REGISTER, {next: 1, flags: 1})).sense, '5/26/00', 'APTPL without a place to keep anything')
  t.equal(await read(unsaved, 2), '0008109' + '0ea010000')
})

t.test('so many may register and no more', async t => {
  const {a, join} = await serve()
  await out(a, REGISTER, {next: 1})
  for (let index = 1; index < 256; index++) {
    const other = await join(`i${index}`)
    t.equal((await out(other, REGISTER, {next: 1})).status, GOOD)
    other.leave()
  }
  t.equal((await out(await join('more'), REGISTER, {next: 1})).sense, '5/55/04')
  t.equal((await out(a, REGISTER, {key: 1, next: 2})).status, GOOD)
  const status = hex(await read(a, 3))
  t.equal(status.readUInt32BE(4), status.length - 8)
  t.ok(status.length > 256 * 64, 'of each of them')
})

t.test('RESERVE and RELEASE', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  await out(a, REGISTER, {next: 1})
  await out(b, REGISTER, {next: 2})
  t.equal((await out(b, RELEASE, {key: 2, type: 1})).status, GOOD, 'there is none')
  t.equal((await out(a, RESERVE, {key: 1, type: 1})).status, GOOD)
  t.equal((await out(a, RESERVE, {key: 1, type: 1})).status, GOOD, 'once more')
  t.equal((await out(a, RESERVE, {key: 1, type: 3})).status, CONFLICT)
  t.equal((await out(b, RESERVE, {key: 2, type: 1})).status, CONFLICT)
  t.equal((await out(b, RELEASE, {key: 2, type: 1})).status, GOOD, 'not theirs')
  t.equal((await out(a, RELEASE, {key: 1, type: 3})).sense, '5/26/04')
  t.equal((await out(a, RELEASE, {key: 1, type: 1})).status, GOOD)
  t.same(await b.attentions(), [], 'with these types nobody is told')
  await out(a, RESERVE, {key: 1, type: 6})
  await out(a, RELEASE, {key: 1, type: 6})
  t.same(await b.attentions(), ['6/2a/04'])
  t.same(await a.attentions(), [])
})

t.test('the reservation ends with the registration of its holder, or of the last one', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  for (const [type, ends, told] of [[1, true, []], [3, true, []], [5, true, ['6/2a/04']], [6, true, ['6/2a/04']], [7, false, []], [8, false, []]] as const) {
    await out(a, REGISTER_AND_IGNORE, {next: 1})
    await out(b, REGISTER_AND_IGNORE, {next: 2})
    await out(a, RESERVE, {key: 1, type})
    await out(a, REGISTER, {key: 1})
    t.equal((await read(a, 1)).slice(8) === '00000000', ends, `type ${type}`)
    t.same(await b.attentions(), told)
    await out(b, REGISTER, {key: 2})
    t.equal((await read(a, 1)).slice(8), '00000000')
  }
})

t.test('a key can be changed while it is used', async t => {
  const {a} = await serve()
  await out(a, REGISTER, {next: 1})
  await out(a, RESERVE, {key: 1, type: 1})
  await out(a, REGISTER, {key: 1, next: 9})
  t.equal(await read(a, 1), `0000000200000010${be(9, 8)}0000000000010000`)
})

t.test('CLEAR', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  const c = await join('c')
  await out(a, REGISTER, {next: 1})
  await out(b, REGISTER, {next: 2})
  await out(a, RESERVE, {key: 1, type: 3})
  t.equal((await out(b, CLEAR, {key: 2})).status, GOOD)
  t.equal(await read(b, 0), '0000000300000000')
  t.equal(await read(b, 1), '0000000300000000')
  t.same([await a.attentions(), await b.attentions(), await c.attentions()], [['6/2a/03'], [], []])
})

t.test('PREEMPT of the holder: the reservation changes hands', async t => {
  for (const [oldType, newType, others] of [[1, 1, []], [3, 3, []], [1, 3, ['6/2a/04']], [5, 6, ['6/2a/04']]] as const) {
    const {a, join} = await serve()
    const [b, c] = [await join('b'), await join('c')]
    await out(a, REGISTER, {next: 1})
    await out(b, REGISTER, {next: 2})
    await out(c, REGISTER, {next: 3})
    await out(a, RESERVE, {key: 1, type: oldType})
    t.equal((await out(b, PREEMPT, {key: 2, next: 1, type: newType})).status, GOOD)
    t.equal(await read(b, 1), `0000000400000010${be(2, 8)}00000000000${newType}0000`)
    t.equal(await read(b, 0), `0000000400000010${be(2, 8)}${be(3, 8)}`)
    t.same([await a.attentions(), await b.attentions(), await c.attentions()], [['6/2a/05'], [], others])
  }
})

t.test('PREEMPT of registrations: the reservation stays', async t => {
  const {a, join} = await serve()
  const [b, c] = [await join('b'), await join('c')]
  await out(a, REGISTER, {next: 1})
  await out(b, REGISTER, {next: 2})
  await out(c, REGISTER, {next: 2})
  await out(a, RESERVE, {key: 1, type: 5})
  t.equal((await out(a, PREEMPT, {key: 1, next: 2})).status, GOOD, 'the type means nothing here')
  t.equal(await read(a, 0), `0000000400000008${be(1, 8)}`)
  t.equal(await read(a, 1), `0000000400000010${be(1, 8)}0000000000050000`)
  t.same([await a.attentions(), await b.attentions(), await c.attentions()], [[], ['6/2a/05'], ['6/2a/05']])
  t.equal((await out(a, PREEMPT, {key: 1, next: 2})).status, CONFLICT, 'nobody has that key')
  t.equal((await out(a, PREEMPT, {key: 1, next: 0})).sense, '5/26/00')
})

t.test('PREEMPT of all registrants', async t => {
  const {a, join} = await serve()
  const [b, c] = [await join('b'), await join('c')]
  await out(a, REGISTER, {next: 1})
  await out(b, REGISTER, {next: 2})
  await out(c, REGISTER, {next: 3})
  await out(a, RESERVE, {key: 1, type: 7})
  t.equal((await out(b, PREEMPT, {key: 2, next: 3, type: 7})).status, GOOD)
  t.equal(await read(b, 0), `0000000400000010${be(1, 8)}${be(2, 8)}`, 'one of them')
  t.equal((await out(b, PREEMPT, {key: 2, next: 0, type: 1})).status, GOOD)
  t.equal(await read(b, 0), `0000000500000008${be(2, 8)}`, 'everybody else')
  t.equal(await read(b, 1), `0000000500000010${be(2, 8)}0000000000010000`)
  t.same([await a.attentions(), await b.attentions(), await c.attentions()], [['6/2a/05'], [], ['6/2a/05']])
})

t.test('PREEMPT by the holder of its own key keeps its registration', async t => {
  const {a} = await serve()
  await out(a, REGISTER, {next: 1})
  await out(a, RESERVE, {key: 1, type: 1})
  t.equal((await out(a, PREEMPT, {key: 1, next: 1, type: 3})).status, GOOD)
  t.equal(await read(a, 1), `0000000200000010${be(1, 8)}0000000000030000`)
})

t.test('PREEMPT AND ABORT ends the commands of those it keeps out', async t => {
  const {a, join, device} = await serve()
  const b = await join('b')
  await out(a, REGISTER, {next: 1})
  await out(b, REGISTER, {next: 2})
  await out(a, RESERVE, {key: 1, type: 1})
  device.mode = 'held'
  const write = a.start('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512, 1)})
  const preempt = b.start(`5f ${be(PREEMPT_AND_ABORT, 1)} 01 00 00 00000018 00`, {out: hex(be(2, 8), be(1, 8), '0000000000000000')})
  await new Promise(resolve => setImmediate(resolve))
  t.ok(write.aborted)
  t.equal(preempt.finished, 0, 'it ends when nothing of theirs is under way')
  device.release()
  t.equal((await preempt.result).status, GOOD)
  t.equal(write.finished, 1)
  t.equal((await a.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})).sense, '6/2a/05')
  t.equal((await a.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})).status, CONFLICT)
})

t.test('an initiator keeps its registration over sessions, another ISID is another initiator', async t => {
  const {a, server} = await serve()
  await out(a, REGISTER, {next: 1})
  await out(a, RESERVE, {key: 1, type: 3})
  const {initiatorName, isid} = a.nexus
  a.leave()
  const again = Object.create(a, {nexus: {value: {initiatorName, isid: Buffer.from(isid), id: 10_001, peer: ''}}}) as Initiator
  server.nexusAdded(again.nexus)
  await again.attentions()
  t.equal((await again.send('28 00 00000000 00 0001 00')).status, GOOD)
  const other = Object.create(a, {nexus: {value: {initiatorName, isid: Buffer.alloc(6), id: 10_002, peer: ''}}}) as Initiator
  server.nexusAdded(other.nexus)
  await other.attentions()
  t.equal((await other.send('28 00 00000000 00 0001 00')).status, CONFLICT)
})

t.test('APTPL: over a restart', async t => {
  const store = new MemoryStore()
  const {a, join} = await serve(MiB, MiB, store)
  const b = await join('b')
  await out(a, REGISTER, {next: 1, flags: 1})
  await out(b, REGISTER, {next: 2, flags: 1})
  await out(a, RESERVE, {key: 1, type: 1})
  t.equal(await read(a, 2), '0008119' + '1ea010000')
  const second = await serve(MiB, MiB, store)
  const c = await second.join('c')
  t.equal((await c.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})).status, CONFLICT)
  t.equal((await second.a.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})).status, GOOD)
  t.equal(await read(c, 0), `0000000000000010${be(1, 8)}${be(2, 8)}`, 'the generation begins anew')
  await out(second.a, RELEASE, {key: 1, type: 1})
  t.equal(store.saved!.reservation, undefined)
  await out(second.a, REGISTER, {key: 1, next: 5})
  t.same(store.saved!.registrations, [], 'APTPL 0: nothing is kept any more')
  const third = await serve(MiB, MiB, store)
  t.equal(await read(third.a, 0), '0000000000000000')
})

t.test('what cannot be kept has not happened', async t => {
  const {a, store} = await serve()
  store.broken = true
  t.equal((await out(a, REGISTER, {next: 1, flags: 1})).status, CHECK)
  t.equal(await read(a, 0), '0000000000000000')
  store.broken = false
  t.equal((await out(a, REGISTER, {next: 1, flags: 1})).status, GOOD)
})

t.test('requests at the same time follow each other', async t => {
  const {a, join} = await serve()
  const b = await join('b')
  await out(a, REGISTER, {next: 1, flags: 1})
  await out(b, REGISTER, {next: 2, flags: 1})
  const results = await Promise.all([out(a, RESERVE, {key: 1, type: 1}), out(b, RESERVE, {key: 2, type: 1})])
  t.same(results.map(({status}) => status), [GOOD, CONFLICT])
})
