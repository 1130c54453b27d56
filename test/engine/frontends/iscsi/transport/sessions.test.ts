import {randomBytes} from 'node:crypto'
import t from 'tap'
import {CODE} from './support/fake-device-server.js'
import {Initiator, INITIATOR, TARGET} from './support/initiator.js'
import {eventually, serve} from './support/served.js'
import {hex, IMMEDIATE, lunBytes, NONE, OP, pairsOf, rw10, text} from './support/wire.js'

const ready = Buffer.alloc(16)
const OTHER_ISID = hex('80 000001 0002')

t.test('several initiators and several sessions of one', async t => {
  const {port, device, server} = await serve(t)
  const initiators = [
    await Initiator.open(port),
    await Initiator.open(port, {isid: OTHER_ISID}),
    await Initiator.open(port, {name: 'iqn.2000-01.org.example:two'}),
  ]
  t.equal(new Set(initiators.map(initiator => initiator.tsih)).size, 3)
  device.mode = 'later'
  const data = initiators.map(() => randomBytes(300 * 512))
  await Promise.all(initiators.map((initiator, index) => initiator.write(index * 300, data[index]!)))
  for (const initiator of initiators) {
    for (const [index, bytes] of data.entries()) t.ok((await initiator.read(index * 300, 300)).equals(bytes))
  }
  t.equal(await initiators[1]!.logout(), 0)
  await eventually(() => server.sessions === 2, 'one has gone')
  t.same(device.events.filter(([what]) => what === 'added').length, 3)
  t.same(device.events.at(-1), ['lost', INITIATOR, OTHER_ISID.toString('hex')])
  await Promise.all([initiators[0]!.ping(), initiators[2]!.ping()])
  for (const initiator of initiators) initiator.kill()
  await eventually(() => server.sessions === 0, 'all have gone')
})

t.test('a login with the name and ISID of a session takes its place', async t => {
  const {port, device, server, reasons} = await serve(t)
  device.mode = 'held'
  const old = await Initiator.open(port)
  const lost = t.rejects(old.run(ready))
  const write = t.rejects(old.run(rw10(CODE.WRITE, 0, 8), {write: Buffer.alloc(4096, 1)}))
  await eventually(() => device.held === 2, 'commands run')
  const anew = await Initiator.open(port, {name: INITIATOR.toUpperCase()})
  await Promise.all([old.end(), lost, write])
  t.equal(server.sessions, 1)
  t.same(
    device.events.filter(([what]) => what === 'added' || what === 'lost').map(([what]) => what),
    ['added', 'lost', 'added'],
  )
  t.match(reasons(), ['the initiator has started this session anew'])
  t.not(anew.tsih, old.tsih)
  t.equal(device.running, 2, 'the device server still has them')
  device.mode = 'now'
  device.release()
  t.equal(device.running, 0)
  t.equal((await anew.run(ready)).status, 0)
  anew.kill()
})

t.test('a login that fails takes nobody\'s place', async t => {
  const {port, server} = await serve(t)
  const initiator = await Initiator.open(port)
  const other = await Initiator.connect(port)
  await other.loginStep({transit: false, text: {InitiatorName: INITIATOR, TargetName: TARGET}})
  await initiator.ping()
  await other.loginStep({text: {MaxRecvDataSegmentLength: '1'}})
  await other.end()
  await initiator.ping()
  t.equal(server.sessions, 1)
  initiator.kill()
})

t.test('an initiator may replace the connection of its session, and not add one', async t => {
  const {port, device, server, reasons} = await serve(t)
  device.mode = 'held'
  const old = await Initiator.open(port, {cid: 3})
  const lost = t.rejects(old.run(ready, {itt: 50}))
  await eventually(() => device.held === 1, 'a command runs')
  const second = await Initiator.connect(port)
  await t.rejects(second.login({tsih: old.tsih, cid: 4}), {message: 'login refused: 206'})
  await t.rejects((await Initiator.connect(port)).login({tsih: old.tsih, cid: 3, isid: OTHER_ISID}), {message: 'login refused: 20a'})
  await t.rejects((await Initiator.connect(port)).login({tsih: old.tsih, cid: 3, name: 'iqn.2000-01.org.example:two'}), {message: 'login refused: 20a'})
  const anew = await Initiator.connect(port)
  anew.cmdSN = 2
  await anew.login({tsih: old.tsih, cid: 3, digests: {header: true, data: true}})
  await Promise.all([old.end(), lost])
  t.equal(anew.tsih, old.tsih)
  t.equal(server.sessions, 1)
  t.same(device.events.map(([what]) => what), ['added'], 'for the device server nothing has changed')
  const again = anew.run(ready, {itt: 50})
  await eventually(() => device.held === 2, 'the tag is free')
  device.release()
  t.equal((await again).status, 0)
  t.equal(anew.expCmdSN, 3, 'numbers go on')
  t.ok(reasons().includes('the initiator has replaced this connection'))
  anew.kill()
  await eventually(() => server.sessions === 0, 'gone')
})

t.test('too many sessions', async t => {
  const {port, server} = await serve(t)
  const initiators = await Promise.all(Array.from({length: 64}, (_, index) => Initiator.open(port, {name: `iqn.2000-01.org.example:${index}`})))
  await t.rejects(Initiator.open(port), {message: 'login refused: 302'})
  t.equal(server.sessions, 64)
  const discovering = await Initiator.connect(port)
  t.equal((await discovering.loginStep({text: {InitiatorName: INITIATOR, SessionType: 'Discovery'}})).at36, 0)
  discovering.kill()
  for (const initiator of initiators) initiator.kill()
  await eventually(() => server.sessions === 0, 'gone')
  const next = await Initiator.open(port)
  await next.ping()
  next.kill()
})

t.test('too many connections', async t => {
  const {port, server, entries} = await serve(t)
  const idle = await Promise.all(Array.from({length: 128}, () => Initiator.connect(port)))
  await eventually(() => server.connections === 128, 'all are accepted')
  for (let count = 0; count < 3; count++) await (await Initiator.connect(port)).end()
  t.equal(entries.filter(entry => `${entry.msg}`.includes('refusing')).length, 1, 'the log says so once')
  for (const initiator of idle) initiator.kill()
  await eventually(() => server.connections === 0, 'gone')
})

t.test('discovery', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.connect(port)
  const response = await initiator.loginStep({text: {InitiatorName: INITIATOR, SessionType: 'Discovery', MaxBurstLength: '65536', DefaultTime2Wait: '2'}})
  t.same(pairsOf(response.data), {MaxBurstLength: 'Irrelevant', DefaultTime2Wait: '2', MaxRecvDataSegmentLength: '131072'})
  t.not(response.header.readUInt16BE(14), 0)
  const ask = async (value: string): Promise<Record<string, string>> => {
    initiator.send({opcode: OP.TEXT | IMMEDIATE, itt: 9, at20: NONE, at24: 1, data: text({SendTargets: value})})
    const answer = await initiator.next()
    t.same([answer.opcode, answer.flags, answer.at20], [OP.TEXT_RESPONSE, 0x80, NONE])
    return pairsOf(answer.data)
  }
  const listing = {TargetName: TARGET, TargetAddress: `127.0.0.1:${port},1`}
  t.same(await ask('All'), listing)
  t.same(await ask(TARGET), listing)
  t.same(await ask('iqn.2019-10.io.longhorn:other'), {})
  t.same(await ask(''), {SendTargets: 'Reject'})
  t.comment('nothing else is done there')
  for (const pdu of [
    {opcode: OP.COMMAND, flags: 0x81, at24: 1, cdb: ready},
    {opcode: OP.COMMAND, flags: 0xa1, at20: 512, at24: 2, data: Buffer.alloc(512)},
    {opcode: OP.TMF | IMMEDIATE, flags: 0x82, at24: 3},
    {opcode: OP.DATA_OUT, at20: NONE, data: Buffer.alloc(512)},
  ]) {
    initiator.send({...pdu, itt: 9})
    const reject = await initiator.next()
    t.same([reject.opcode, reject.byte2], [OP.REJECT, 4])
  }
  initiator.cmdSN = 3
  await initiator.ping()
  t.equal(await initiator.logout(), 0)
  await initiator.end()
})

t.test('texts of a normal session', async t => {
  const {port, device} = await serve(t)
  const initiator = await Initiator.open(port)
  const say = (data: Buffer, fields: {flags?: number; at20?: number; itt?: number} = {}): void =>
    initiator.send({opcode: OP.TEXT | IMMEDIATE, itt: 9, at20: NONE, at24: 1, data, ...fields})
  const listing = {TargetName: TARGET, TargetAddress: `127.0.0.1:${port},1`}
  say(text({SendTargets: ''}))
  t.same(pairsOf((await initiator.next()).data), listing)
  say(text({SendTargets: 'All'}))
  t.same(pairsOf((await initiator.next()).data), listing)
  say(text({SendTargets: TARGET}))
  t.same(pairsOf((await initiator.next()).data), listing)
  say(text({SendTargets: 'iqn.2019-10.io.longhorn:other'}))
  t.same(pairsOf((await initiator.next()).data), {})
  say(text({MaxRecvDataSegmentLength: '1024', MaxBurstLength: '512', Unknown: 'x'}))
  t.same(pairsOf((await initiator.next()).data), {MaxBurstLength: 'Reject', Unknown: 'NotUnderstood'})
  const {pdus} = await initiator.run(rw10(CODE.READ, 0, 4), {read: 2048})
  t.equal(pdus.length, 2, 'the initiator takes less from now on')

  t.comment('in several requests')
  say(text({SendTargets: ''}).subarray(0, 5), {flags: 0x40})
  const first = await initiator.next()
  t.same([first.flags, first.data.length], [0, 0])
  t.not(first.at20, NONE)
  say(text({SendTargets: ''}).subarray(5), {at20: first.at20})
  const second = await initiator.next()
  t.same([second.flags, second.at20, pairsOf(second.data)], [0x80, NONE, listing])
  say(text({SendTargets: ''}), {flags: 0})
  const open = await initiator.next()
  t.same([open.flags, pairsOf(open.data)], [0, listing])
  say(Buffer.alloc(0), {at20: open.at20})
  t.equal((await initiator.next()).flags, 0x80)

  t.comment('an answer in several responses')
  const unknown = Object.fromEntries(Array.from({length: 100}, (_, index) => [`X-${index}`, '1']))
  say(text(unknown))
  let answer = await initiator.next()
  const parts = [answer.data]
  while ((answer.flags & 0x40) !== 0) {
    t.equal(answer.data.length, 1024)
    say(Buffer.alloc(0), {at20: answer.at20})
    answer = await initiator.next()
    parts.push(answer.data)
  }
  t.equal(Object.keys(pairsOf(Buffer.concat(parts))).length, 100)

  t.comment('what is wrong')
  for (const [data, fields, reason] of [
    [text({SendTargets: ''}), {at20: 77}, 9],
    [text({SendTargets: ''}), {itt: NONE}, 9],
    [text({SendTargets: ''}), {flags: 0xc0}, 9],
    [Buffer.from('nonsense'), {}, 4],
    [text({SendTargets: 'Alle'}), {}, 4],
    [text({SendTargetsPlease: 'All', sENDtARGETS: 'aLL'}), {}, 4],
    [text({MaxRecvDataSegmentLength: '1'}), {}, 4],
  ] as const) {
    say(data, fields)
    const reject = await initiator.next()
    t.same([reject.opcode, reject.byte2], [OP.REJECT, reason])
  }
  for (let count = 0; count < 8; count++) {
    say(Buffer.alloc(8192, 'a'), {flags: 0x40, at20: count === 0 ? NONE : answer.at20})
    answer = await initiator.next()
  }
  say(Buffer.alloc(8192, 'a'), {flags: 0x40, at20: answer.at20})
  t.equal((await initiator.next()).byte2, 4, 'a text without end')
  t.equal(device.running, 0)
  initiator.kill()
})

t.test('logouts', async t => {
  const {port, server, device} = await serve(t)
  const one = await Initiator.open(port, {cid: 7})
  t.equal(await one.logout(1, 8), 1, 'another connection')
  t.equal(await one.logout(2, 7), 2, 'for recovery')
  one.send({opcode: OP.LOGOUT | IMMEDIATE, flags: 0x83, itt: 5, at24: 1})
  t.equal((await one.next()).opcode, OP.REJECT, 'for no known reason')
  device.mode = 'held'
  one.send({opcode: OP.COMMAND, flags: 0x81, lun: lunBytes(1), itt: 7, at24: 1, cdb: ready})
  one.send({opcode: OP.LOGOUT, flags: 0x81, itt: 6, at20: 7 * 0x10000, at24: 2})
  one.send({opcode: OP.NOP_OUT | IMMEDIATE, itt: 7, at20: NONE, at24: 3})
  t.same([(await one.next()).opcode, await one.nextOrEnd()], [OP.LOGOUT_RESPONSE, undefined], 'nothing comes after a logout')
  await eventually(() => server.sessions === 0, 'gone')
  device.release()
  t.equal(device.running, 0)
})

t.test('requests that there are not', async t => {
  const {port, reasons} = await serve(t)
  const initiator = await Initiator.open(port)
  for (const [opcode, reason] of [[0x07, 5], [0x1f, 5], [0x20, 5], [OP.LOGIN | IMMEDIATE, 4], [OP.SNACK, 3]] as const) {
    initiator.send({opcode, itt: 9, at24: 1, data: opcode === 0x1f ? Buffer.alloc(100) : Buffer.alloc(0)})
    const reject = await initiator.next()
    t.same([reject.opcode, reject.byte2, reject.data[0]], [OP.REJECT, reason, opcode])
  }
  await initiator.ping()
  t.same(reasons(), [])
  initiator.send({opcode: OP.NOP_OUT, itt: 9, at20: NONE, at24: 1, data: Buffer.alloc(131073)})
  await initiator.end()
  t.same(reasons(), ['131073 bytes of data in one PDU, 131072 are agreed'])
})
