import t from 'tap'
import {Initiator, INITIATOR, TARGET} from './support/initiator.js'
import {eventually, serve} from './support/served.js'
import {hex, loginPdu, OP, pairsOf, text, type LoginFields} from './support/wire.js'

const NAMES = {InitiatorName: INITIATOR, TargetName: TARGET}
const stageOf = (flags: number): [transit: boolean, current: number, next: number] => [(flags & 0x80) !== 0, (flags >> 2) & 3, flags & 3]

t.test('both stages, with what is said in each', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.connect(port)
  const security = await initiator.loginStep({stage: 0, next: 1, text: {...NAMES, AuthMethod: 'CHAP,None', InitiatorAlias: 'me', Unheard: 'of'}})
  t.same(stageOf(security.flags), [true, 0, 1])
  t.same(pairsOf(security.data), {TargetPortalGroupTag: '1', Unheard: 'NotUnderstood', AuthMethod: 'None'})
  t.equal(security.header.readUInt16BE(14), 0, 'no session yet')
  const first = await initiator.loginStep({stage: 1, transit: false, text: {HeaderDigest: 'CRC32C,None', MaxBurstLength: '1'}})
  t.same(stageOf(first.flags), [false, 1, 0])
  t.same(pairsOf(first.data), {HeaderDigest: 'CRC32C', MaxBurstLength: 'Reject', MaxRecvDataSegmentLength: '131072'})
  const second = await initiator.loginStep({stage: 1, next: 3, text: {DataDigest: 'None'}})
  t.same(stageOf(second.flags), [true, 1, 3])
  t.same(pairsOf(second.data), {DataDigest: 'None'})
  t.not(second.header.readUInt16BE(14), 0, 'a session')
  t.same([security.statSN, first.statSN, second.statSN], [1, 2, 3])
  initiator.digests = {header: true}
  await initiator.ping()
  initiator.kill()
})

t.test('from the security stage right into the full feature phase', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.connect(port)
  const response = await initiator.loginStep({stage: 0, next: 3, text: {...NAMES, AuthMethod: 'None'}})
  t.same(stageOf(response.flags), [true, 0, 3])
  t.equal((await initiator.read(0, 8)).length, 4096)
  initiator.kill()
})

t.test('a security stage without a word about security', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.connect(port)
  const response = await initiator.loginStep({stage: 0, next: 1, text: NAMES})
  t.same(stageOf(response.flags), [true, 0, 1])
  initiator.kill()
})

t.test('keys over several requests, cut anywhere', async t => {
  const whole = text({...NAMES, HeaderDigest: 'None', MaxBurstLength: '65536'})
  for (let cut = 0; cut <= whole.length; cut += 7) {
    const {port} = await serve(t)
    const initiator = await Initiator.connect(port)
    const first = await initiator.loginStep({transit: false, moreFollows: true, text: whole.subarray(0, cut)})
    t.same([first.data.length, first.flags], [0, 0x04], 'nothing is said before all is heard')
    const second = await initiator.loginStep({text: whole.subarray(cut)})
    t.match(pairsOf(second.data), {HeaderDigest: 'None', MaxBurstLength: '65536'})
    initiator.kill()
  }
})

t.test('an answer that needs several responses', async t => {
  const {port} = await serve(t)
  const initiator = await Initiator.connect(port)
  const unknown = Object.fromEntries(Array.from({length: 200}, (_, index) => [`X-${'k'.repeat(30)}-${index}`, '1']))
  let response = await initiator.loginStep({text: {...NAMES, ...unknown}})
  t.same([response.flags, response.data.length], [0x44, 8192])
  const parts = [response.data]
  while ((response.flags & 0x40) !== 0) {
    response = await initiator.loginStep({})
    parts.push(response.data)
  }
  t.same(stageOf(response.flags), [true, 1, 3])
  const answered = pairsOf(Buffer.concat(parts))
  t.equal(Object.values(answered).filter(value => value === 'NotUnderstood').length, 200)
  await initiator.ping()
  initiator.kill()
})

/** Requests that end in a refusal: what is sent, the status, what the log says. */
const refusals: [what: string, requests: LoginFields[], status: number, reason: RegExp][] = [
  ['no InitiatorName', [{text: {TargetName: TARGET}}], 0x0207, /no InitiatorName/],
  ['no TargetName', [{text: {InitiatorName: INITIATOR}}], 0x0207, /no TargetName/],
  ['another target', [{text: {InitiatorName: INITIATOR, TargetName: 'iqn.2019-10.io.longhorn:other'}}], 0x0203, /a target that is not here/],
  ['an unknown session type', [{text: {...NAMES, SessionType: 'Weird'}}], 0x0209, /SessionType/],
  ['a name that is none', [{text: {...NAMES, InitiatorName: 'no name'}}], 0x0200, /InitiatorName/],
  ['a name that is too long', [{text: {...NAMES, InitiatorName: `iqn.${'x'.repeat(220)}`}}], 0x0200, /InitiatorName/],
  ['a version to come', [{versionMin: 1, text: NAMES}], 0x0205, /version 1/],
  ['a session that is not here', [{tsih: 77, text: NAMES}], 0x020a, /no session 77/],
  ['a discovery session that is not here', [{tsih: 77, text: {InitiatorName: INITIATOR, SessionType: 'Discovery'}}], 0x020a, /discovery/],
  ['a stage that does not exist', [{stage: 2, next: 3, text: NAMES}], 0x0200, /stage 2/],
  ['the full feature phase at once', [{stage: 3, next: 3, text: NAMES}], 0x0200, /stage 3/],
  ['a step to a stage that does not exist', [{stage: 0, next: 2, text: NAMES}], 0x0200, /from stage 0 to 2/],
  ['a step that is none', [{stage: 1, next: 1, text: NAMES}], 0x0200, /from stage 1 to 1/],
  ['a step back', [{stage: 1, next: 0, text: NAMES}], 0x0200, /from stage 1 to 0/],
  ['more to come at the end', [{stage: 1, next: 3, moreFollows: true, text: NAMES}], 0x0200, /goes on and ends/],
  ['another stage than agreed', [{stage: 0, next: 1, text: NAMES}, {stage: 0, next: 1}], 0x0200, /stage 0 in stage 1/],
  ['an operational key too early', [{stage: 0, next: 1, text: {...NAMES, HeaderDigest: 'None'}}], 0x0200, /HeaderDigest in the security stage/],
  ['a security key too late', [{text: {...NAMES, AuthMethod: 'None'}}], 0x0200, /AuthMethod in the operational stage/],
  ['a key twice', [{transit: false, text: {...NAMES, MaxBurstLength: '512'}}, {text: {MaxBurstLength: '512'}}], 0x0200, /MaxBurstLength is said twice/],
  ['a key twice in one text', [{text: Buffer.concat([text(NAMES), text({MaxBurstLength: '512'}), text({MaxBurstLength: '512'})])}], 0x0200, /said twice/],
  ['a declaration out of range', [{text: {...NAMES, MaxRecvDataSegmentLength: '100'}}], 0x0200, /MaxRecvDataSegmentLength is not a number/],
  ['a text that is none', [{text: Buffer.from('InitiatorName\0')}], 0x0200, /without "="/],
  ['another ISID', [{transit: false, text: NAMES}, {isid: hex('80 000001 0002')}], 0x0200, /changed during login/],
  ['another TSIH', [{transit: false, text: NAMES}, {tsih: 3}], 0x0200, /changed during login/],
  ['another CID', [{transit: false, text: NAMES}, {cid: 3}], 0x0200, /changed during login/],
  ['another task tag', [{transit: false, text: NAMES}, {itt: 3}], 0x0200, /changed during login/],
  ['no method that will do', [{stage: 0, next: 1, text: {...NAMES, AuthMethod: 'KRB5,SRP'}}], 0x0201, /None is needed/],
  ['CHAP out of the blue', [{stage: 0, next: 1, text: {...NAMES, CHAP_A: '5'}}], 0x0200, /out of order/],
  ['a text without end', Array.from({length: 9}, () => ({transit: false, moreFollows: true, text: Buffer.alloc(8192, 'a')})), 0x0302, /more than 65536 bytes/],
  ['a login without end', [{transit: false, text: NAMES}, ...Array.from({length: 64}, () => ({transit: false}))], 0x0200, /more than 64 login requests/],
  ['text where there should be none', [{text: {...NAMES, ...Object.fromEntries(Array.from({length: 200}, (_, index) => [`X-${'k'.repeat(30)}-${index}`, '1']))}}, {text: {MaxBurstLength: '512'}}], 0x0200, /in the middle of an answer/],
]

t.test('logins that are refused', async t => {
  const {port, server, reasons} = await serve(t)
  for (const [what, requests, status, reason] of refusals) {
    const initiator = await Initiator.connect(port)
    let response
    for (const fields of requests) response = await initiator.loginStep(fields)
    t.equal((response?.at36 ?? -1) >>> 16, status, what)
    t.notOk(((response?.flags ?? 0) & 0xc0) !== 0, 'and goes no further')
    await initiator.end()
    await eventually(() => server.connections === 0, 'gone')
    t.match(reasons().at(-1), reason)
  }
  t.equal(server.sessions, 0)
})

t.test('what is no login', async t => {
  const {port, server, reasons} = await serve(t)
  const stranger = await Initiator.connect(port)
  stranger.socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: somebody\r\n\r\n')
  await stranger.end()
  const hasty = await Initiator.connect(port)
  hasty.send({opcode: OP.NOP_OUT, itt: 1})
  await hasty.end()
  const confused = await Initiator.connect(port)
  await confused.loginStep({transit: false, text: NAMES})
  confused.send({opcode: OP.NOP_OUT, itt: 1})
  t.equal((await confused.next()).at36 >>> 16, 0x020b)
  await confused.end()
  const long = await Initiator.connect(port)
  long.send(loginPdu({text: Buffer.alloc(8193, 'a')}))
  await long.end()
  await eventually(() => server.connections === 0, 'gone')
  t.match(reasons(), [/does not begin with an iSCSI login/, /does not begin with an iSCSI login/, /opcode 0 during login/, /8193 bytes of data in one PDU, 8192 are agreed/])
})

t.test('only initiators on the list', async t => {
  const {port, reasons} = await serve(t, {rules: {allowedInitiators: new Set([INITIATOR])}})
  const allowed = await Initiator.open(port, {name: INITIATOR.toUpperCase()})
  await allowed.ping()
  const other = await Initiator.connect(port)
  const response = await other.loginStep({text: {...NAMES, InitiatorName: 'iqn.2000-01.org.example:two'}})
  t.equal(response.at36 >>> 16, 0x0202)
  await other.end()
  await eventually(() => reasons().length === 1, 'logged')
  const discovering = await Initiator.connect(port)
  await discovering.loginStep({text: {InitiatorName: 'iqn.2000-01.org.example:two', SessionType: 'Discovery'}})
  discovering.send({opcode: OP.TEXT | 0x40, itt: 5, at20: 0xffffffff, at24: 1, data: text({SendTargets: 'All'})})
  t.equal((await discovering.next()).data.length, 0, 'nor does it learn that there is a target')
  discovering.kill()
  allowed.kill()
})
