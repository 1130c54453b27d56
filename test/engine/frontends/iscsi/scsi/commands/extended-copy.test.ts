import {randomFillSync} from 'node:crypto'
import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {BUSY, GOOD, be, hex, MiB, serve, type Initiator} from '../support/served-disk.js'
import type {FakeTask, Result} from '../support/fake-task.js'

const END = 16 * MiB / 512

interface Segment {
  readonly from: number
  readonly to: number
  readonly blocks: number
  readonly source?: number
  readonly destination?: number
  readonly type?: string
}

interface List {
  readonly id?: number
  readonly usage?: number
  readonly targets?: readonly string[]
  readonly segments?: readonly Segment[]
}

/** A target descriptor with the disk's own NAA designator. */
async function target(a: Initiator, {type = 'e4', naa = '', device = '00'} = {}): Promise<string> {
  const page = (await a.send('12 01 83 ffff 00')).data
  const designator = naa || page.toString('hex', 8, 16)
  return `${type}${device}000001030008${designator}${'00'.repeat(12)}00000200`
}

function list({id = 1, usage = 0, targets = [], segments = []}: List): Buffer {
  const parts = segments.map(
    ({from, to, blocks, source = 0, destination = 0, type = '02'}) => `${type}000018${be(source, 2)}${be(destination, 2)}0000${be(blocks, 2)}${be(from, 8)}${be(to, 8)}`,
  )
  return hex(be(id, 1), be(usage << 3, 1), be(targets.length * 32, 2), '00000000', be(parts.length * 28, 4), '00000000', ...targets, ...parts)
}

function start(a: Initiator, out: Buffer): FakeTask {
  return a.start(`83 00 0000000000000000 ${be(out.length, 4)} 00 00`, {out})
}

function copy(a: Initiator, what: List): Promise<Result> {
  return start(a, list(what)).result
}

function status(a: Initiator, id: number): Promise<Result> {
  return a.send(`84 00 ${be(id, 1)} 00000000000000 00000100 00 00`)
}

t.test('copies within the volume', async t => {
  const {a, device} = await serve()
  const data = randomFillSync(Buffer.alloc(6000 * 512))
  data.copy(device.bytes)
  const targets = [await target(a)]
  const {status: code, transferLength} = await copy(a, {targets, segments: [{from: 3, to: 10_000, blocks: 5000}, {from: 10_000, to: END - 7, blocks: 7}, {from: 0, to: 20_000, blocks: 0}]})
  t.same([code, transferLength], [GOOD, 16 + 32 + 3 * 28])
  t.ok(device.bytes.subarray(10_000 * 512, 15_000 * 512).equals(data.subarray(3 * 512, 5003 * 512)))
  t.ok(device.bytes.subarray((END - 7) * 512).equals(data.subarray(3 * 512, 10 * 512)), 'segments are copied one after the other')
  t.equal((await status(a, 1)).data.toString('hex'), `0000000881000300${be(5007 * 512, 4)}`)
})

t.test('zeros are not written out', async t => {
  const {a, device} = await serve()
  device.bytes.fill(9, 4 * MiB)
  device.records = []
  t.equal((await copy(a, {targets: [await target(a)], segments: [{from: 0, to: 10_000, blocks: 3000}]})).status, GOOD)
  t.ok(device.bytes.subarray(10_000 * 512, 13_000 * 512).every(byte => byte === 0))
  t.equal(device.bytes[13_000 * 512], 9)
  t.notOk(device.records.some(({op}) => op === OP.WRITE))
})

t.test('operating parameters, byte for byte', async t => {
  const {a} = await serve()
  const {data} = await a.send('84 03 00 00000000000000 00000100 00 00')
  t.equal(data.toString('hex'), '0000002a' + '01000000' + '0004' + '0010' + '00000240' + '01fffe00' + '00'.repeat(14) + '0004' + '04' + '09' + '0000' + '000000' + '02' + '02e4')
})

t.test('lists that cannot be read', async t => {
  const {a, device} = await serve()
  const ours = await target(a)
  const segment = {from: 0, to: 1000, blocks: 8}
  device.records = []
  const cut = list({targets: [ours], segments: [segment]})
  for (const [out, sense] of [
    [Buffer.alloc(15), '5/1a/00'],
    [cut.subarray(0, cut.length - 1), '5/1a/00'],
    [cut.subarray(0, 47), '5/1a/00'],
    [list({targets: [await target(a, {type: 'e0'})], segments: [segment]}), '5/26/07'],
    [list({targets: [ours], segments: [{...segment, type: '03'}]}), '5/26/09'],
    [list({targets: Array<string>(5).fill(ours), segments: [segment]}), '5/26/06'],
    [list({targets: [ours], segments: Array<Segment>(17).fill(segment)}), '5/26/08'],
    [list({targets: Array<string>(5).fill(ours), segments: Array<Segment>(17).fill(segment)}), '5/1a/00'],
    [hex(be(1, 1), '00', '0000', '00000000', 'fffffff0', '00000000'), '5/1a/00'],
    [hex(be(1, 1), '00', '0000', '00000000', '00000000', '00000001'), '5/26/00'],
    [list({targets: [ours.replace('00000200', '00001000')], segments: [segment]}), '5/26/00'],
    [list({targets: [ours.replace('01030008', '010300ff')], segments: [segment]}), '5/26/00'],
  ] as const) {
    t.equal((await start(a, out).result).sense, sense)
  }
  t.equal((await a.send('83 00 0000000000000000 00000000 00 00')).status, GOOD, 'no list at all')
  t.equal((await a.send('83 00 0000000000000000 ffffffff 00 00')).sense, '5/1a/00')
  t.same(device.records, [])
  t.equal((await status(a, 1)).sense, '5/24/00')
})

t.test('segments that cannot be copied', async t => {
  const {a, device} = await serve()
  const targets = [await target(a), await target(a, {naa: '3000000000000001'}), await target(a, {device: '01'})]
  for (const [segment, sense] of [
    [{from: 0, to: END - 1, blocks: 2}, 'a/00/00'],
    [{from: END, to: 0, blocks: 1}, 'a/00/00'],
    [{from: 0, to: 1000, blocks: 1, destination: 3}, 'a/08/04'],
    [{from: 0, to: 1000, blocks: 1, source: 0xffff}, 'a/08/04'],
    [{from: 0, to: 1000, blocks: 1, source: 1}, 'a/0d/02'],
    [{from: 0, to: 1000, blocks: 1, destination: 2}, 'a/0d/02'],
  ] as const) {
    t.equal((await copy(a, {targets, segments: [{from: 0, to: 100, blocks: 8}, segment]})).sense, sense)
    t.equal((await status(a, 1)).data.toString('hex'), `0000000882000100${be(4096, 4)}`, 'one was copied')
  }
  device.bytes[5] = 1
  for (const [errno, sense] of [[ERRNO.EIO, 'a/0d/01'], [ERRNO.ENOSPC, '7/27/07']] as const) {
    device.fault = ({op}) => (op === OP.WRITE ? errno : 0)
    t.equal((await copy(a, {targets, segments: [{from: 0, to: 100, blocks: 8}]})).sense, sense)
  }
})

t.test('while a copy is under way', async t => {
  const {a, join, device} = await serve()
  const b = await join('b')
  const targets = [await target(a)]
  const segments = [{from: 0, to: 100, blocks: 8}]
  device.mode = 'held'
  const first = start(a, list({id: 7, targets, segments}))
  const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))
  await settle()
  t.equal((await status(a, 7)).data.toString('hex'), '000000088000000000000000')
  t.equal((await status(b, 7)).sense, '5/24/00', 'it is not theirs')
  t.equal((await copy(a, {id: 7, targets, segments})).sense, '5/00/16')
  const more = [1, 2, 3].map(id => start(b, list({id, targets, segments})))
  await settle()
  t.equal((await copy(b, {id: 9, targets, segments})).status, BUSY, 'there are only so many at a time')
  device.mode = 'now'
  device.release()
  for (const task of [first, ...more]) t.equal((await task.result).status, GOOD)
  t.equal((await copy(b, {id: 9, usage: 3, targets, segments})).status, GOOD)
  t.equal((await status(b, 9)).sense, '5/24/00', 'no identifier, no result')
})

t.test('only the last results are remembered, and those of a session only as long as it', async t => {
  const {a} = await serve()
  const targets = [await target(a)]
  for (let id = 0; id < 40; id++) await copy(a, {id, targets, segments: []})
  t.equal((await status(a, 20)).sense, '5/24/00')
  t.equal((await status(a, 39)).status, GOOD)
  a.server.nexusLost(a.nexus)
  a.server.nexusAdded(a.nexus)
  await a.attentions()
  t.equal((await status(a, 39)).sense, '5/24/00')
})

t.test('a copy that is taken back stops', async t => {
  const {a, device} = await serve()
  device.mode = 'held'
  const task = start(a, list({targets: [await target(a)], segments: [{from: 0, to: 16000, blocks: 16000}]}))
  await new Promise(resolve => setImmediate(resolve))
  task.abort()
  device.mode = 'now'
  device.records = []
  device.release()
  await task.result
  t.same(device.records.filter(({op}) => op === OP.READ), [])
})
