import t from 'tap'
import {NbdClient, NbdError} from './support/nbd-client.js'
import {serve} from './support/served.js'
import {CMD, ERR, hex, infoData, metaData, option, OPT, REP, request, u16, u32} from './support/wire.js'

const GREETING = '4e42444d41474943 49484156454f5054 0003'
const REPLY = '0003e889045565a9'
/** HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN. */
const FLAGS = 0x016d

t.test('a handshake with GO is the one of the document, byte for byte', async t => {
  const {path} = await serve(t, {sizeBytes: 0x123000})
  const client = await NbdClient.connect(path)
  client.socket.write(
    hex(
      '00000003',
      '49484156454f5054 00000008 00000000',
      '49484156454f5054 0000000a 0000001e 00000003 766f6c 00000001 0000000f 626173653a616c6c6f636174696f6e',
      '49484156454f5054 00000007 0000000f 00000003 766f6c 0003 0001 0002 0003',
    ),
  )
  const expected = hex(
    GREETING,
    `${REPLY} 00000008 00000001 00000000`,
    `${REPLY} 0000000a 00000004 00000013 00000001 626173653a616c6c6f636174696f6e`,
    `${REPLY} 0000000a 00000001 00000000`,
    `${REPLY} 00000007 00000003 0000000c 0000 0000000000123000 01ed`,
    `${REPLY} 00000007 00000003 00000005 0001 766f6c`,
    `${REPLY} 00000007 00000003 00000015 0002`,
    Buffer.from('Longhorn volume vol').toString('hex'),
    `${REPLY} 00000007 00000003 0000000e 0003 00000001 00001000 02000000`,
    `${REPLY} 00000007 00000001 00000000`,
  )
  t.equal((await client.bytes(expected.length)).toString('hex'), expected.toString('hex'))
  client.kill()
})

t.test('EXPORT_NAME ends the handshake with 124 zeroes, or without where both agree', async t => {
  const {path} = await serve(t, {sizeBytes: 8192})
  for (const [clientFlags, zeroes] of [[1, 124], [3, 0], [0, 124], [2, 0]] as const) {
    for (const name of ['vol', '']) {
      const client = await NbdClient.connect(path)
      client.socket.write(Buffer.concat([u32(clientFlags), option(OPT.EXPORT_NAME, Buffer.from(name)), request({command: CMD.READ, length: 4, cookie: 7n})]))
      await client.greeting()
      const answer = await client.bytes(10 + zeroes)
      t.equal(answer.toString('hex'), `0000000000002000016d${'00'.repeat(zeroes)}`)
      t.equal((await client.bytes(20)).toString('hex'), '67446698000000000000000000000007' + '00000000', 'and then the transmission phase')
      client.kill()
    }
  }
})

t.test('a client that asks for another volume is told which one there is', async t => {
  const {path, reasons} = await serve(t)
  const client = await NbdClient.connect(path)
  client.socket.write(u32(3))
  await client.greeting()
  await client.option(OPT.STRUCTURED_REPLY)
  for (const code of [OPT.INFO, OPT.GO]) {
    const [reply] = await client.option(code, infoData('other'))
    t.match(reply, {option: code, type: REP.ERR_UNKNOWN})
    t.match(reply?.data.toString(), /"other".*"vol"/)
  }
  for (const code of [OPT.SET_META_CONTEXT, OPT.LIST_META_CONTEXT]) {
    t.match(await client.option(code, metaData('other', 'base:allocation')), [{type: REP.ERR_UNKNOWN}])
  }
  client.socket.write(option(OPT.EXPORT_NAME, Buffer.from('other')))
  t.equal((await client.rest()).length, 0, 'EXPORT_NAME has no other answer than to hang up')
  t.match(reasons(), [/"other".*"vol"/])
})

t.test('LIST, INFO and ABORT', async t => {
  const {path, server} = await serve(t, {sizeBytes: 4096})
  const client = await NbdClient.connect(path)
  client.socket.write(u32(1))
  await client.greeting()
  t.same(await client.option(OPT.LIST), [
    {option: OPT.LIST, type: REP.SERVER, data: Buffer.concat([u32(3), Buffer.from('vol')])},
    {option: OPT.LIST, type: REP.ACK, data: Buffer.alloc(0)},
  ])
  const info = await client.option(OPT.INFO, infoData('', 77, 3))
  t.same(
    info.map(reply => reply.data.toString('hex')),
    [`0000${'0000000000001000'}${FLAGS.toString(16).padStart(4, '0')}`, '0003000000010000100002000000', ''],
    'what nobody knows is left out',
  )
  t.match(await client.option(OPT.ABORT, Buffer.from('bye')), [{type: REP.ACK}], 'also with data')
  t.equal((await client.rest()).length, 0)
  t.equal(server.connections, 0)
})

t.test('what this server does not do is refused, and the client may go on', async t => {
  const {path} = await serve(t)
  const client = await NbdClient.connect(path)
  client.socket.write(u32(3))
  await client.greeting()
  for (const code of [OPT.STARTTLS, OPT.EXTENDED_HEADERS, 4, 12, 0, 0xffffffff]) {
    t.match(await client.option(code), [{option: code, type: REP.ERR_UNSUP}])
  }
  t.match(await client.option(99, Buffer.alloc(60_000)), [{type: REP.ERR_UNSUP}], 'with data, which is skipped')
  t.match(await client.option(99, Buffer.alloc(3_000_000)), [{type: REP.ERR_UNSUP}], 'however much it is')
  t.match(await client.option(OPT.INFO, Buffer.alloc(3_000_000)), [{type: REP.ERR_TOO_BIG}])
  t.match(await client.option(OPT.STARTTLS, Buffer.alloc(1)), [{type: REP.ERR_INVALID}])
  t.match((await client.option(OPT.GO, infoData('vol'))).at(-1), {type: REP.ACK})
  client.kill()
})

t.test('malformed options are refused as invalid', async t => {
  const {path} = await serve(t)
  const client = await NbdClient.connect(path)
  client.socket.write(u32(3))
  await client.greeting()
  t.match(await client.option(OPT.LIST_META_CONTEXT, metaData('vol')), [{type: REP.ERR_INVALID}], 'structured replies come first')
  await client.option(OPT.STRUCTURED_REPLY)
  const cases: [number, Buffer, string][] = [
    [OPT.LIST, Buffer.alloc(1), 'data where there is none'],
    [OPT.STRUCTURED_REPLY, Buffer.alloc(1), 'data where there is none'],
    [OPT.GO, Buffer.alloc(0), 'nothing'],
    [OPT.GO, u32(3), 'a name that is not there'],
    [OPT.GO, Buffer.concat([u32(0), u16(2), u16(1)]), 'fewer than it says'],
    [OPT.GO, Buffer.concat([infoData('vol'), u16(1)]), 'more than it says'],
    [OPT.GO, infoData('v\0l'), 'a zero byte in the name'],
    [OPT.GO, infoData('x'.repeat(4097)), 'a name that is too long'],
    [OPT.GO, Buffer.concat([u32(0xffffffff), u16(0)]), 'a name of 4 GiB'],
    [OPT.SET_META_CONTEXT, Buffer.alloc(0), 'nothing'],
    [OPT.SET_META_CONTEXT, Buffer.concat([u32(0), u32(0xffffffff)]), 'four milliard queries'],
    [OPT.SET_META_CONTEXT, Buffer.concat([u32(0), u32(1), u32(50), Buffer.from('base:')]), 'a query that is not there'],
  ]
  for (const [code, data, what] of cases) t.match(await client.option(code, data), [{option: code, type: REP.ERR_INVALID}], `${code}: ${what}`)
  client.kill()
})

t.test('metadata contexts', async t => {
  const {path} = await serve(t)
  const allocation = Buffer.from('base:allocation')
  const listed = async (client: NbdClient, code: number, ...queries: string[]): Promise<string[]> => {
    const replies = await client.option(code, metaData('vol', ...queries))
    t.equal(replies.at(-1)?.type, REP.ACK)
    return replies.slice(0, -1).map(reply => `${reply.data.readUInt32BE()} ${reply.data.subarray(4).toString()}`)
  }
  const client = await NbdClient.connect(path)
  client.socket.write(u32(3))
  await client.greeting()
  await client.option(OPT.STRUCTURED_REPLY)
  t.same(await listed(client, OPT.LIST_META_CONTEXT), [`0 ${allocation.toString()}`])
  t.same(await listed(client, OPT.LIST_META_CONTEXT, 'x-other:', 'base:'), [`0 ${allocation.toString()}`])
  t.same(await listed(client, OPT.LIST_META_CONTEXT, 'base:allocation', 'base:allocation'), [`0 ${allocation.toString()}`])
  t.same(await listed(client, OPT.LIST_META_CONTEXT, 'qemu:dirty', 'base:other', 'nonsense'), [])
  t.same(await listed(client, OPT.SET_META_CONTEXT), [])
  t.same(await listed(client, OPT.SET_META_CONTEXT, 'base:'), [], 'a wildcard selects nothing')
  t.same(await listed(client, OPT.SET_META_CONTEXT, 'x-a:b', 'base:allocation'), [`1 ${allocation.toString()}`])
  client.kill()

  const statusAfter = async (...options: Buffer[]): Promise<number> => {
    const client = await NbdClient.connect(path)
    client.socket.write(Buffer.concat([u32(3), option(OPT.STRUCTURED_REPLY), ...options, option(OPT.GO, infoData('vol'))]))
    await client.greeting()
    let reply = await client.optionReply()
    while (reply.option !== OPT.GO || reply.type !== REP.ACK) reply = await client.optionReply()
    client.structured = true
    client.startMatching()
    const {error} = await client.request({command: CMD.BLOCK_STATUS, length: 4096})
    client.kill()
    return error
  }
  const set = (name: string, ...queries: string[]): Buffer => option(OPT.SET_META_CONTEXT, metaData(name, ...queries))
  t.equal(await statusAfter(set('vol', 'base:allocation')), 0)
  t.equal(await statusAfter(), ERR.EINVAL, 'never asked for')
  t.equal(await statusAfter(set('', 'base:allocation')), ERR.EINVAL, 'asked for under another name')
  t.equal(await statusAfter(set('vol', 'base:allocation'), set('vol')), ERR.EINVAL, 'replaced by nothing')
  t.equal(await statusAfter(set('vol', 'base:allocation'), option(OPT.SET_META_CONTEXT, u32(9))), ERR.EINVAL, 'also by a request that failed')
})

t.test('a client that breaks the rules of the handshake is cut off', async t => {
  const {path, server, reasons} = await serve(t)
  const cases: [string, Buffer, RegExp][] = [
    ['flags that nobody offered', u32(7), /flags 0x7/],
    ['all flags', u32(0xffffffff), /flags 0xffffffff/],
    ['no magic number', Buffer.concat([u32(3), Buffer.from('IHAVEOPX'), u32(3), u32(0)]), /magic/],
    ['another protocol', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), /flags/],
    ['a name that is too long', Buffer.concat([u32(3), Buffer.from('IHAVEOPT'), u32(1), u32(5000), Buffer.alloc(5000, 97)]), /4096/],
    ['a name of 4 GiB', Buffer.concat([u32(3), Buffer.from('IHAVEOPT'), u32(1), u32(0xffffffff)]), /4294967295/],
    ['haggling without end', Buffer.concat([u32(3), ...Array.from({length: 101}, () => option(OPT.LIST))]), /100 options/],
    ['haggling by a client that said it cannot', Buffer.concat([u32(0), option(OPT.LIST), option(OPT.LIST)]), /fixed newstyle/],
  ]
  for (const [what, bytes, reason] of cases) {
    const client = await NbdClient.connect(path)
    client.socket.write(bytes)
    await client.rest()
    t.match(reasons().at(-1), reason, what)
  }
  t.equal(server.connections, 0)
})

t.test('a client that says nothing, or not enough, is cut off in time', async t => {
  const {path, server, reasons} = await serve(t, {handshakeTimeoutMs: 1000})
  for (const bytes of [Buffer.alloc(0), u32(3), Buffer.concat([u32(3), option(OPT.LIST)]), Buffer.concat([u32(3), option(OPT.GO, infoData('vol')).subarray(0, 20)])]) {
    const client = await NbdClient.connect(path)
    client.socket.write(bytes)
    await client.rest()
    t.match(reasons().at(-1), /no export chosen within 1000 ms/)
  }
  t.equal(server.connections, 0)
  const client = await NbdClient.open(path)
  await new Promise(resolve => setTimeout(resolve, 1500))
  await client.flush()
  t.pass('whoever has chosen may be silent as long as he likes')
  await client.close()
})

t.test('there is a limit to connections', async t => {
  const {path, server, reasons} = await serve(t)
  const clients = await Promise.all(Array.from({length: 128}, () => NbdClient.open(path)))
  t.equal(server.connections, 128)
  const late = await NbdClient.connect(path)
  t.equal((await late.rest()).length, 0, 'the next one is not even greeted')
  t.match(reasons(), [/128 already/])
  await clients[0]?.close()
  const next = await NbdClient.open(path)
  await next.flush()
  t.pass('until one of them goes')
  for (const client of clients) client.kill()
  await next.close()
})

t.test('an error of the handshake is an error with its text for the client', async t => {
  const {path} = await serve(t)
  await t.rejects(NbdClient.openSimple(path, 'nope'), new NbdError(REP.ERR_UNKNOWN, 'export "nope", but this server has only "vol"'))
})
