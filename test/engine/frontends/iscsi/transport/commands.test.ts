import {randomBytes} from 'node:crypto'
import t from 'tap'
import {CODE, FakeDeviceServer, SENSE} from './support/fake-device-server.js'
import {Initiator} from './support/initiator.js'
import {eventually, serve} from './support/served.js'
import {lunBytes, NONE, OP, rw10} from './support/wire.js'

const KIB = 1024

t.test('what is written is read back, whichever way its data travels', async t => {
  const {port, device, reasons} = await serve(t)
  for (const immediate of [true, false]) {
    for (const initialR2T of [true, false]) {
      for (const digests of [{}, {header: true}, {data: true}, {header: true, data: true}]) {
        const initiator = await Initiator.open(port, {immediate, initialR2T, firstBurst: 20 * KIB, piece: 5001, digests})
        const what = `immediate ${immediate}, InitialR2T ${initialR2T}, digests ${Object.keys(digests).join(' ')}`
        for (const blocks of [1, 8, 39, 40, 41, 257, 1000]) {
          const data = randomBytes(blocks * 512)
          await initiator.write(7, data)
          t.ok(device.bytes.subarray(7 * 512, (7 + blocks) * 512).equals(data), `${blocks} blocks, ${what}`)
          t.ok((await initiator.read(7, blocks)).equals(data))
        }
        t.equal(await initiator.logout(), 0)
        await initiator.end()
      }
    }
  }
  t.same(reasons(), [])
})

t.test('how a write is asked for', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.open(port, {immediate: false, initialR2T: true, keys: {MaxBurstLength: '65536', MaxOutstandingR2T: '2'}})
  const {pdus} = await initiator.run(rw10(CODE.WRITE, 0, 400), {write: Buffer.alloc(400 * 512, 1)})
  t.same(pdus.map(({at36, at40, at44}) => [at36, at40, at44]), [[0, 0, 65536], [1, 65536, 65536], [2, 131072, 65536], [3, 196608, 8192]], 'R2TSN, offset, length')
  t.equal(new Set(pdus.map(pdu => pdu.at20)).size, 4, 'each with its own transfer tag')
  initiator.kill()
})

t.test('how a read is sent', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.open(port, {segment: 40_000, keys: {MaxBurstLength: '100000'}})
  const {pdus} = await initiator.run(rw10(CODE.READ, 0, 600), {read: 600 * 512})
  t.same(
    pdus.map(({at36, at40, data, flags}) => [at36, at40, data.length, flags]),
    [
      [0, 0, 40_000, 0],
      [1, 40_000, 40_000, 0],
      [2, 80_000, 20_000, 0x80],
      [3, 100_000, 31_072, 0],
      [4, 131_072, 40_000, 0],
      [5, 171_072, 28_928, 0x80],
      [6, 200_000, 40_000, 0],
      [7, 240_000, 22_144, 0],
      [8, 262_144, 37_856, 0x80],
      [9, 300_000, 7200, 0x81],
    ],
    'no more than the initiator takes in one PDU, and a final bit at the end of each burst',
  )
  initiator.kill()
})

t.test('data that comes out of order goes out in order', async t => {
  const device = new FakeDeviceServer()
  device.pieceBytes = 4096
  const orders: ((pieces: readonly number[]) => readonly number[])[] = [
    pieces => pieces.toReversed(),
    pieces => [...pieces.slice(7), ...pieces.slice(0, 7)],
    pieces => pieces.toSorted((a, b) => ((a * 7919) % 65536) - ((b * 7919) % 65536)),
  ]
  device.bytes.set(randomBytes(device.bytes.length))
  const {port} = await serve(t, {device})
  const initiator = await Initiator.open(port)
  for (const order of orders) {
    device.order = order
    const {pdus, data} = await initiator.run(rw10(CODE.READ, 3, 301), {read: 301 * 512})
    t.ok(data.equals(device.bytes.subarray(3 * 512, 304 * 512)))
    t.ok(pdus.every((pdu, index) => pdu.at36 === index && (index === 0 || pdu.at40 > pdus[index - 1]!.at40)))
    t.equal(pdus.at(-1)?.flags, 0x81)
  }
  initiator.kill()
})

t.test('residual counts', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port, {immediate: true})
  device.bytes.fill(7)
  const flagsOf = ({last}: {last: {flags: number; at44: number}}): [number, number] => [last.flags & 6, last.at44]
  t.comment('reads')
  const less = await initiator.run(rw10(CODE.READ, 0, 2), {read: 4096})
  t.same([less.data.length, flagsOf(less), less.last.opcode], [1024, [2, 3072], OP.DATA_IN], 'less than expected')
  const more = await initiator.run(rw10(CODE.READ, 0, 8), {read: 1000})
  t.same([more.data.length, flagsOf(more), more.last.opcode], [1000, [4, 3096], OP.DATA_IN], 'more than expected')
  const none = await initiator.run(rw10(CODE.READ, 0, 8))
  t.same([none.data.length, flagsOf(none), none.last.opcode], [0, [4, 4096], OP.RESPONSE], 'nothing expected')
  const inquiry = await initiator.run(Buffer.from('120000002400'.padEnd(32, '0'), 'hex'), {read: 255})
  t.same([inquiry.data.length, flagsOf(inquiry)], [36, [2, 219]])
  const failed = await initiator.run(rw10(CODE.FAIL, 0, 0), {read: 512})
  t.same([failed.status, failed.sense, flagsOf(failed)], [2, SENSE, [2, 512]])
  t.comment('writes')
  const data = Buffer.alloc(4096, 1)
  const excess = await initiator.run(rw10(CODE.WRITE, 0, 2), {write: data})
  t.same(flagsOf(excess), [2, 3072])
  t.same([device.bytes[1023], device.bytes[1024]], [1, 7], 'what the command does not mention is not written')
  const short = await initiator.run(rw10(CODE.WRITE, 0, 8), {write: data.subarray(0, 512)})
  t.same([flagsOf(short), device.events.at(-1)], [[4, 3584], ['end', 512, false]])
  const nothing = await initiator.run(rw10(CODE.WRITE, 0, 8))
  t.same([flagsOf(nothing), device.events.at(-1)], [[4, 4096], ['end', 0, false]])
  initiator.kill()
})

t.test('parameter data', async t => {
  const {port, device} = await serve(t)
  const cdb = Buffer.alloc(16)
  cdb[0] = CODE.PARAMETERS
  cdb[4] = 24
  for (const options of [{immediate: true}, {immediate: false}, {immediate: false, initialR2T: true}]) {
    const initiator = await Initiator.open(port, {...options, piece: 7})
    const sent = randomBytes(24)
    await initiator.run(cdb, {write: sent})
    t.same(device.events.at(-1), ['parameters', sent.toString('hex'), false])
    const short = await initiator.run(cdb, {write: sent.subarray(0, 10)})
    t.same(device.events.at(-1), ['parameters', sent.toString('hex', 0, 10), false], 'less than the command says')
    t.same([short.last.flags & 6, short.last.at44], [4, 14])
    initiator.kill()
  }
})

t.test('a device server that asks late, or not at all', async t => {
  const {port, device} = await serve(t)
  device.mode = 'held'
  const data = randomBytes(100 * 512)
  for (const digests of [{}, {data: true}]) {
    const initiator = await Initiator.open(port, {firstBurst: 30 * KIB, piece: 3000, digests})
    const late = initiator.run(rw10(CODE.LATE, 0, 100), {write: data})
    await eventually(() => device.held === 1, 'dispatched')
    await initiator.ping()
    device.release()
    await eventually(() => device.held === 1, 'written')
    device.release()
    t.equal((await late).status, 0)
    t.ok(device.bytes.subarray(0, data.length).equals(data))
    const ignored = initiator.run(rw10(CODE.IGNORE_DATA, 0, 100), {write: data})
    await eventually(() => device.held === 1, 'dispatched')
    device.release()
    t.same([(await ignored).status, (await ignored).last.flags & 6], [0, 2])
    initiator.kill()
  }
})

t.test('a command that fails at once is answered when its unsolicited data is here', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.open(port)
  initiator.send({opcode: OP.COMMAND, flags: 0x21, lun: lunBytes(1), itt: 5, at20: 4096, at24: 1, cdb: rw10(CODE.FAIL, 0, 8), data: Buffer.alloc(1024)})
  await initiator.ping()
  initiator.send({opcode: OP.DATA_OUT, flags: 0, itt: 5, at20: NONE, at36: 0, at40: 1024, data: Buffer.alloc(1024)})
  await initiator.ping()
  initiator.send({opcode: OP.DATA_OUT, flags: 0x80, itt: 5, at20: NONE, at36: 1, at40: 2048, data: Buffer.alloc(1024)})
  const response = await initiator.next()
  t.same([response.opcode, response.itt, response.byte3, response.data.subarray(2)], [OP.RESPONSE, 5, 2, SENSE])
  initiator.kill()
})

t.test('task attributes and logical units', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  for (const attribute of [0, 1, 2, 3, 4, 7]) await initiator.run(rw10(CODE.TEST_UNIT_READY, 0, 0), {attribute})
  t.same(device.attributes, ['untagged', 'simple', 'ordered', 'head-of-queue', 'aca', 'simple'])
  initiator.kill()
})

t.test('an extended command descriptor block', async t => {
  const device = new FakeDeviceServer()
  const seen: string[] = []
  const dispatch = device.dispatch.bind(device)
  device.dispatch = task => {
    seen.push(task.cdb.toString('hex'))
    dispatch(task)
  }
  const {port} = await serve(t, {device})
  const initiator = await Initiator.open(port, {digests: {header: true}})
  const send = (itt: number, ahs: Buffer): void =>
    initiator.send({opcode: OP.COMMAND | 0x40, flags: 0x81, lun: lunBytes(1), itt, cdb: Buffer.alloc(16), ahs})
  // 32 bytes in all: 17 that count behind the first three, of which the first is reserved.
  send(5, Buffer.from(`001101ff${'ab'.repeat(16)}`, 'hex'))
  t.equal((await initiator.next()).byte3, 0)
  t.same(seen, ['00'.repeat(16) + 'ab'.repeat(16)])
  send(6, Buffer.from(`00050200${'00'.repeat(4)}`, 'hex'))
  t.equal((await initiator.next()).byte3, 0, 'one of another type')
  for (const ahs of ['ffff0100', '00000100', '0005010000000000'.repeat(2)]) {
    send(7, Buffer.from(ahs, 'hex'))
    t.same((await initiator.next()).data.subarray(4, 16).toString('hex'), '05000000000a000000000e03', `nonsense: ${ahs}`)
  }
  initiator.kill()
})

t.test('what the transport refuses by itself', async t => {
  const {port, device, server} = await serve(t)
  const sense = (data: Buffer): string => [data[4], data[14], data[15]].map(byte => byte!.toString(16).padStart(2, '0')).join('/')
  const solicited = await Initiator.open(port, {immediate: false, initialR2T: true})
  const command = {opcode: OP.COMMAND, flags: 0xa1, lun: lunBytes(1), itt: 5, at20: 4096, cdb: rw10(CODE.WRITE, 0, 8)}
  solicited.send({...command, at24: 1, data: Buffer.alloc(512)})
  t.equal(sense((await solicited.next()).data), '0b/0c/0c', 'immediate data where ImmediateData is No')
  solicited.send({...command, at24: 2, flags: 0x21})
  solicited.send({opcode: OP.DATA_OUT, itt: 5, at20: NONE, data: Buffer.alloc(512)})
  t.equal(sense((await solicited.next()).data), '0b/0c/0c', 'unsolicited data where InitialR2T is Yes')
  solicited.send({...command, at24: 3, flags: 0xe1})
  t.equal(sense((await solicited.next()).data), '05/0e/03', 'data both ways')
  solicited.kill()
  const unsolicited = await Initiator.open(port, {firstBurst: 2048})
  unsolicited.send({...command, at24: 1, data: Buffer.alloc(2052)})
  t.equal(sense((await unsolicited.next()).data), '0b/0c/0c', 'more than FirstBurstLength')
  unsolicited.send({...command, at24: 2, at20: 512, data: Buffer.alloc(516)})
  t.equal(sense((await unsolicited.next()).data), '0b/0c/0c', 'more than the command is about')
  unsolicited.send({...command, at24: 3, flags: 0x81, data: Buffer.alloc(512)})
  t.equal(sense((await unsolicited.next()).data), '0b/0c/0c', 'data of a command that has none')
  unsolicited.send({...command, at24: 4, flags: 0x01})
  t.equal(sense((await unsolicited.next()).data), '0b/0c/0c', 'the same, later')
  t.same(device.events.filter(([what]) => what === 'piece'), [])
  await unsolicited.ping()
  t.equal(server.sessions, 1)
  unsolicited.kill()
})

t.test('Data-Out PDUs that do not fit', async t => {
  const {port, device, entries} = await serve(t)
  const sense = (data: Buffer): string => [data[4], data[14], data[15]].map(byte => byte!.toString(16).padStart(2, '0')).join('/')
  let cmdSN = 1
  const initiator = await Initiator.open(port, {firstBurst: 2048, keys: {MaxBurstLength: '2048'}})
  const start = (flags: number, itt: number): void =>
    initiator.send({opcode: OP.COMMAND, flags, lun: lunBytes(1), itt, at20: 4096, at24: cmdSN++, cdb: rw10(CODE.WRITE, 0, 8)})
  const data = {opcode: OP.DATA_OUT, itt: 5, lun: lunBytes(1)}
  t.comment('unsolicited')
  start(0x21, 5)
  initiator.send({...data, at20: NONE, at36: 1, data: Buffer.alloc(512)})
  t.equal(sense((await initiator.next()).data), '0b/47/05', 'a DataSN left out')
  start(0x21, 5)
  initiator.send({...data, at20: NONE, at40: 512, data: Buffer.alloc(512)})
  t.equal(sense((await initiator.next()).data), '0b/0c/0d', 'a wrong offset')
  start(0x21, 5)
  initiator.send({...data, at20: NONE, data: Buffer.alloc(2052)})
  t.equal(sense((await initiator.next()).data), '0b/0c/0c', 'too much')
  t.comment('asked for')
  for (const [what, wrong, wanted] of [
    ['a DataSN left out', {at36: 1, data: Buffer.alloc(2048)}, '0b/47/05'],
    ['a wrong offset', {at40: 4, data: Buffer.alloc(2048)}, '0b/0c/0d'],
    ['too much', {data: Buffer.alloc(2052)}, '0b/0c/0d'],
    ['too little', {data: Buffer.alloc(2044)}, '0b/0c/0d'],
  ] as const) {
    start(0xa1, 5)
    const r2t = await initiator.next()
    initiator.send({...data, at20: r2t.at20, ...wrong})
    t.equal(sense((await initiator.next()).data), wanted, what)
    t.same(device.events.at(-1), ['end', 0, true])
  }
  t.comment('that belong to nothing')
  for (const wrong of [{itt: 99, at20: NONE}, {itt: 99, at20: 0}, {itt: 5, at20: 1}]) {
    initiator.send({...data, ...wrong, data: Buffer.alloc(8)})
    const reject = await initiator.next()
    t.same([reject.opcode, reject.byte2], [OP.REJECT, 9])
  }
  start(0xa1, 6)
  const r2t = await initiator.next()
  for (const wrong of [{itt: 6, at20: NONE}, {itt: 6, at20: r2t.at20 + 1}]) {
    initiator.send({...data, ...wrong, data: Buffer.alloc(8)})
    t.equal((await initiator.next()).opcode, OP.REJECT)
  }
  t.comment('and then the right ones')
  initiator.send({...data, itt: 6, at20: r2t.at20, data: Buffer.alloc(2048, 5)})
  const next = await initiator.next()
  initiator.send({...data, itt: 6, at20: next.at20, at40: 2048, data: Buffer.alloc(2048, 6)})
  t.equal((await initiator.next()).byte3, 0)
  t.same([device.bytes[0], device.bytes[4095]], [5, 6])
  t.ok(entries.some(entry => entry.msg === 'iscsi: PDU rejected' && `${entry.peer}`.startsWith('iqn.2000-01.org.example:one')), 'the log names the initiator')
  initiator.kill()
})
