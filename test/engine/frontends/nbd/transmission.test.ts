import t from 'tap'
import {ERRNO, OP} from '../../../../src/protocol/block-device.js'
import {NbdClient} from './support/nbd-client.js'
import {serve} from './support/served.js'
import {CMD, ERR, FLAG, fullHandshake, hex, infoData, option, OPT, request, u32} from './support/wire.js'

const MIB = 1024 * 1024

/** Everything that the server says after a handshake and these requests, until it hangs up. */
async function conversation(path: string, handshake: Buffer, handshakeReplyBytes: number, ...requests: Buffer[]): Promise<Buffer> {
  const client = await NbdClient.connect(path)
  client.socket.write(Buffer.concat([handshake, ...requests, request({command: CMD.DISC})]))
  await client.bytes(handshakeReplyBytes)
  return client.rest()
}

t.test('structured replies are those of the document, byte for byte', async t => {
  const {path, device} = await serve(t, {sizeBytes: 0x10000})
  device.bytes.write('abcd', 0x1000)
  const replies = await conversation(
    path,
    fullHandshake(),
    18 + 20 + 39 + 20 + 32 + 34 + 20,
    hex('25609513 0000 0000 0102030405060708 0000000000001000 00000004'),
    hex('25609513 0001 0001 fffefdfcfbfaf9f8 0000000000001001 00000002 7879'),
    hex('25609513 0000 0003 0000000000000003 0000000000000000 00000000'),
    hex('25609513 0000 0000 0000000000000004 000000000000fffe 00000003'),
    hex('25609513 0008 0007 0000000000000005 0000000000000000 00002000'),
  )
  const text = Buffer.from('3 bytes at 65534 reach beyond the end of the volume, which has 65536').toString('hex')
  t.equal(
    replies.toString('hex'),
    hex(
      '668e33ef 0001 0001 0102030405060708 0000000c 0000000000001000 61626364',
      '668e33ef 0001 0000 fffefdfcfbfaf9f8 00000000',
      '668e33ef 0001 0000 0000000000000003 00000000',
      `668e33ef 0001 8001 0000000000000004 0000004a 00000016 0044 ${text}`,
      '668e33ef 0001 0005 0000000000000005 0000000c 00000001 00001000 00000003',
    ).toString('hex'),
  )
  t.equal(device.bytes.toString('latin1', 0x1000, 0x1004), 'axyd')
})

t.test('simple replies are those of the document, byte for byte', async t => {
  const {path, device} = await serve(t, {sizeBytes: 0x10000})
  device.bytes.write('abcd', 0x1000)
  const replies = await conversation(
    path,
    Buffer.concat([u32(3), option(OPT.GO, infoData(''))]),
    18 + 32 + 20,
    hex('25609513 0000 0000 0102030405060708 0000000000001000 00000004'),
    hex('25609513 0000 0001 fffefdfcfbfaf9f8 0000000000001001 00000002 7879'),
    hex('25609513 0000 0000 0000000000000004 000000000000fffe 00000003'),
    hex('25609513 0000 0001 0000000000000005 000000000000ffff 00000002 7879'),
  )
  t.equal(
    replies.toString('hex'),
    hex(
      '67446698 00000000 0102030405060708 61626364',
      '67446698 00000000 fffefdfcfbfaf9f8',
      '67446698 00000016 0000000000000004',
      '67446698 0000001c 0000000000000005',
    ).toString('hex'),
  )
})

t.test('the flags say what there is', async t => {
  const {path} = await serve(t)
  const structured = await NbdClient.open(path, 'vol')
  t.equal(structured.transmissionFlags, 0b1_1110_1101, 'has flags, flush, FUA, trim, write zeroes, DF, several connections')
  const simple = await NbdClient.openSimple(path, 'vol')
  t.equal(simple.transmissionFlags, 0b1_0110_1101, 'DF only where chunks are')
  t.equal(simple.sizeBytes, 8 * MIB)
  structured.kill()
  simple.kill()
})

for (const kind of ['structured', 'simple'] as const) {
  const open = (path: string): Promise<NbdClient> => (kind === 'structured' ? NbdClient.open(path) : NbdClient.openSimple(path))

  t.test(`${kind}: requests reach the device as what they are`, async t => {
    const {path, device} = await serve(t)
    const client = await open(path)
    device.records = []
    await client.write(4096, Buffer.alloc(512, 1))
    await client.write(8192, Buffer.alloc(512, 1), true)
    await client.flush()
    await client.discard(4096, 4096)
    await client.request({command: CMD.TRIM, offset: 8192, length: 4096, flags: FLAG.FUA})
    await client.zeroes(0, 6 * MIB)
    await client.zeroes(1, 3, FLAG.NO_HOLE | FLAG.FUA)
    await client.read(5, 7)
    const none = {fua: false, noUnmap: false}
    t.same(device.records, [
      {op: OP.WRITE, offset: 4096, length: 512, ...none},
      {op: OP.WRITE, offset: 8192, length: 512, ...none, fua: true},
      {op: OP.FLUSH, offset: 0, length: 0, ...none},
      {op: OP.DISCARD, offset: 4096, length: 4096, ...none},
      {op: OP.DISCARD, offset: 8192, length: 4096, ...none, fua: true},
      {op: OP.WRITE_ZEROES, offset: 0, length: 6 * MIB, ...none},
      {op: OP.WRITE_ZEROES, offset: 1, length: 3, fua: true, noUnmap: true},
      {op: OP.READ, offset: 5, length: 7, ...none},
    ])
    await client.close()
  })

  t.test(`${kind}: what goes wrong is told, and the connection goes on`, async t => {
    const {path, device, reasons} = await serve(t, {sizeBytes: MIB})
    const client = await open(path)
    const {READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS} = CMD
    const {EINVAL, ENOSPC, EOVERFLOW} = ERR
    const payload = Buffer.alloc(4096, 1)
    const cases: [string, Parameters<NbdClient['request']>[0], number][] = [
      ['a read beyond the end', {command: READ, offset: MIB - 4095, length: 4096}, EINVAL],
      ['a trim beyond the end', {command: TRIM, offset: MIB, length: 1}, EINVAL],
      ['a status beyond the end', {command: BLOCK_STATUS, offset: MIB, length: 1}, EINVAL],
      ['a write beyond the end', {command: WRITE, offset: MIB - 4095, payload}, ENOSPC],
      ['zeroes beyond the end', {command: WRITE_ZEROES, offset: 0, length: MIB + 1}, ENOSPC],
      ['an offset of 2^64 - 1', {command: READ, offset: 2n ** 64n - 1n, length: 1}, EINVAL],
      ['an offset of 2^63', {command: WRITE, offset: 2n ** 63n, payload}, ENOSPC],
      ['an end that wraps around', {command: TRIM, offset: 2n ** 64n - 4096n, length: 4096}, EINVAL],
      ['an unknown command', {command: 99}, EINVAL],
      ['CACHE', {command: CACHE, length: 4096}, EINVAL],
      ['an unknown flag', {command: READ, length: 4096, flags: 1 << 9}, EINVAL],
      ['NO_HOLE of a write', {command: WRITE, payload, flags: FLAG.NO_HOLE}, EINVAL],
      ['DF of a write', {command: WRITE, payload, flags: FLAG.DF}, EINVAL],
      ['REQ_ONE of a read', {command: READ, length: 4096, flags: FLAG.REQ_ONE}, EINVAL],
      ['FAST_ZERO', {command: WRITE_ZEROES, length: 4096, flags: FLAG.FAST_ZERO}, EINVAL],
      ['a flush with an offset', {command: FLUSH, offset: 4096}, EINVAL],
      ['a flush with a length', {command: FLUSH, length: 4096}, EINVAL],
      ['a read of more than 32 MiB', {command: READ, length: 32 * MIB + 1}, EOVERFLOW],
      ['the largest read there is', {command: READ, length: 0xffffffff}, EOVERFLOW],
      ['a write of more than 32 MiB', {command: WRITE, payload: Buffer.alloc(32 * MIB + 1)}, EINVAL],
    ]
    device.records = []
    for (const [what, fields, error] of cases) {
      const answer = await client.request(fields)
      t.equal(answer.error, error, what)
      if (kind === 'structured') t.match(answer.text, /./, 'with some words')
    }
    t.same(device.records, [], 'and the device never heard of it')
    if (kind === 'simple') t.equal((await client.request({command: BLOCK_STATUS, length: 4096})).error, EINVAL, 'block status needs chunks')
    t.ok((await client.read(0, 4096)).equals(Buffer.alloc(4096)))
    t.same(reasons(), [])
    await client.close()
  })

  t.test(`${kind}: errors of the device are told`, async t => {
    const {path, device} = await serve(t)
    const client = await open(path)
    const cases = [
      [ERRNO.EIO, ERR.EIO],
      [ERRNO.ENOSPC, ERR.ENOSPC],
      [ERRNO.EINVAL, ERR.EINVAL],
      [ERRNO.ESHUTDOWN, ERR.ESHUTDOWN],
      [9, ERR.EIO],
    ] as const
    for (const [errno, expected] of cases) {
      device.fault = () => errno
      const answers = await Promise.all([
        client.request({command: CMD.READ, length: 4096}),
        client.request({command: CMD.READ, length: MIB}),
        client.request({command: CMD.WRITE, payload: Buffer.alloc(MIB, 7)}),
        client.request({command: CMD.FLUSH}),
        client.request({command: CMD.TRIM, length: 4096}),
        client.request({command: CMD.WRITE_ZEROES, length: 4096}),
      ])
      for (const {error} of answers) t.equal(error, expected)
    }
    device.fault = () => 0
    t.ok((await client.read(0, MIB)).equals(Buffer.alloc(MIB)), 'nothing of it was written')
    device.full = true
    t.equal((await client.request({command: CMD.WRITE, payload: Buffer.alloc(8192, 7)})).error, ERR.ENOSPC)
    await client.close()
  })

  t.test(`${kind}: requests without a length do nothing, and do it well`, async t => {
    const {path, device} = await serve(t)
    const client = await open(path)
    const size = device.sizeBytes
    device.records = []
    for (const command of [CMD.READ, CMD.WRITE, CMD.TRIM, CMD.WRITE_ZEROES]) {
      t.equal((await client.request({command, offset: size, length: 0})).error, 0)
    }
    t.equal((await client.request({command: CMD.READ, offset: size + 1, length: 0})).error, ERR.EINVAL)
    t.same(device.records, [])
    await client.close()
  })

}

t.test('BLOCK_STATUS', async t => {
  const {path, device, server} = await serve(t, {sizeBytes: 64 * MIB})
  const client = await NbdClient.open(path)
  await client.write(8192, Buffer.alloc(4096, 1))
  await client.write(20480, Buffer.alloc(8192, 1))
  const status = async (offset: number, length: number, flags = 0): Promise<string[]> => {
    const {chunks, error} = await client.request({command: CMD.BLOCK_STATUS, offset, length, flags})
    t.match({error, chunks}, {error: 0, chunks: [{type: 5, isLast: true}]})
    const payload = chunks[0]?.payload ?? Buffer.alloc(0)
    t.equal(payload.readUInt32BE(), 1)
    return Array.from({length: (payload.length - 4) / 8}, (_, index) => `${payload.readUInt32BE(4 + 8 * index)}:${payload.readUInt32BE(8 + 8 * index)}`)
  }
  t.same(await status(0, 65536), ['8192:3', '4096:0', '8192:3', '8192:0', '36864:3'])
  t.same(await status(0, 65536, FLAG.REQ_ONE), ['8192:3'])
  t.same(await status(8193, 1), ['1:0'])
  t.equal((await client.request({command: CMD.BLOCK_STATUS, length: 0})).error, ERR.EINVAL)
  const many = Array.from({length: 10_000}, (_, index) => ({offset: index * 512, length: 512, allocated: index % 2 === 0}))
  device.blockStatus = () => Promise.resolve(many)
  t.equal((await status(0, 64 * MIB)).length, 8192, 'the answer is bounded; the client asks on')
  device.blockStatus = () => Promise.reject(new Error('replicas: none of them can tell'))
  t.match(await client.request({command: CMD.BLOCK_STATUS, length: 4096}), {error: ERR.EIO, text: /none of them can tell/})
  device.fault = () => ERRNO.EIO
  t.match(await client.request({command: CMD.READ, length: 4096}), {error: ERR.EIO, text: 'input/output error'}, 'a text goes with its own request only')
  await client.close()
  t.equal(server.connections, 0)
})

t.test('the volume may grow: a client that knows can use it at once', async t => {
  const {MemoryDevice} = await import('../../support/memory-device.js')
  const device = new MemoryDevice(MIB, 2 * MIB)
  const {path} = await serve(t, {device})
  const client = await NbdClient.open(path)
  t.equal((await client.request({command: CMD.WRITE, offset: MIB, payload: Buffer.alloc(512, 1)})).error, ERR.ENOSPC)
  device.sizeBytes = 2 * MIB
  await client.write(MIB, Buffer.alloc(512, 1))
  const other = await NbdClient.open(path)
  t.equal(other.sizeBytes, 2 * MIB)
  await client.close()
  await other.close()
})
