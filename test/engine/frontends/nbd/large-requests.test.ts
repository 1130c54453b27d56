import {randomBytes} from 'node:crypto'
import t from 'tap'
import {ERRNO, MAX_IO_BYTES, OP} from '../../../../src/protocol/block-device.js'
import {until} from '../../../support/until.js'
import {NbdClient} from './support/nbd-client.js'
import {serve} from './support/served.js'
import {CMD, ERR, FLAG, request} from './support/wire.js'

const MIB = 1024 * 1024

for (const kind of ['structured', 'simple'] as const) {
  const open = (path: string): Promise<NbdClient> => (kind === 'structured' ? NbdClient.open(path) : NbdClient.openSimple(path))

  t.test(`${kind}: large requests are cut up, also when pieces finish in another order`, async t => {
    const {path, device} = await serve(t, {sizeBytes: 40 * MIB})
    const client = await open(path)
    for (const [offset, length] of [[0, 32 * MIB], [4096, MIB], [511, 32 * MIB], [1, MAX_IO_BYTES + 1], [4095, MAX_IO_BYTES], [MAX_IO_BYTES - 1, 2 * MAX_IO_BYTES + 2]] as const) {
      const data = randomBytes(length)
      device.records = []
      await client.write(offset, data)
      const pieces = device.records.map(record => record.length)
      t.ok(pieces.every(piece => piece <= MAX_IO_BYTES), `${pieces.length} pieces for ${length} bytes`)
      const inner = device.records.slice(1)
      t.ok(inner.every(record => record.offset % 4096 === 0), 'cuts lie on the edge of a block')
      t.ok(device.bytes.subarray(offset, offset + length).equals(data), `written at ${offset}`)

      device.mode = 'held'
      const read = client.read(offset, length)
      const count = length <= MAX_IO_BYTES ? 1 : Math.ceil((length + (offset % 4096)) / MAX_IO_BYTES)
      await until(() => device.held === count, 'all pieces are with the device')
      device.mode = 'now'
      device.release(held => held.toReversed())
      t.ok((await read).equals(data), `read at ${offset}`)
    }
    await client.close()
  })

  t.test(`${kind}: a piece that fails fails its request, once`, async t => {
    const {path, device} = await serve(t, {sizeBytes: 4 * MIB})
    const client = await open(path)
    for (const mode of ['now', 'later'] as const) {
      device.mode = mode
      for (const broken of [0, 5 * MAX_IO_BYTES, 4 * MIB - MAX_IO_BYTES]) {
        device.fault = io => (io.offset === broken ? ERRNO.EIO : 0)
        t.equal((await client.request({command: CMD.READ, length: 4 * MIB})).error, ERR.EIO, `read, ${mode}, ${broken}`)
        device.fault = io => (io.offset <= broken && broken < io.offset + io.length ? ERRNO.ENOSPC : 0)
        t.equal((await client.request({command: CMD.WRITE, payload: Buffer.alloc(4 * MIB)})).error, ERR.ENOSPC, `write, ${mode}, ${broken}`)
      }
      device.fault = () => 0
      t.equal((await client.read(0, 4 * MIB)).length, 4 * MIB, 'and the next one is fine')
    }
    t.equal(client.protocolError, undefined)
    await client.close()
  })
}

t.test('DF: the data is one chunk, and an error is told before it', async t => {
  const {path, device} = await serve(t, {sizeBytes: 4 * MIB})
  const client = await NbdClient.open(path)
  device.mode = 'later'
  const data = randomBytes(3 * MIB)
  await client.write(12345, data)
  const good = await client.request({command: CMD.READ, offset: 12345, length: data.length, flags: FLAG.DF})
  t.equal(good.chunks.length, 1)
  t.ok(good.data.equals(data))
  device.fault = io => (io.offset > 2 * MIB ? ERRNO.EIO : 0)
  const bad = await client.request({command: CMD.READ, length: 3 * MIB, flags: FLAG.DF})
  t.match(bad, {error: ERR.EIO, chunks: {length: 1}}, 'no data at all')
  t.equal((await client.request({command: CMD.READ, length: 32 * MIB + 1, flags: FLAG.DF})).error, ERR.EOVERFLOW)
  await client.close()
})

t.test('FUA of a write that is cut up: one flush behind its pieces, none when one failed', async t => {
  const {path, device} = await serve(t, {sizeBytes: 4 * MIB})
  const client = await NbdClient.open(path)
  device.mode = 'later'
  device.records = []
  await client.write(0, Buffer.alloc(MIB, 1), true)
  t.equal(device.records.at(-1)?.op, OP.FLUSH)
  t.ok(device.records.slice(0, -1).every(record => record.op === OP.WRITE && !record.fua))
  t.equal(device.dirty.size, 0)
  device.fault = io => (io.offset === 0 && io.op === OP.WRITE ? ERRNO.EIO : 0)
  device.flushes = 0
  t.equal((await client.request({command: CMD.WRITE, payload: Buffer.alloc(MIB, 1), flags: FLAG.FUA})).error, ERR.EIO)
  t.equal(device.flushes, 0)
  device.fault = io => (io.op === OP.FLUSH ? ERRNO.EIO : 0)
  t.equal((await client.request({command: CMD.WRITE, payload: Buffer.alloc(MIB, 1), flags: FLAG.FUA})).error, ERR.EIO, 'a failed flush is an error of the write')
  await client.close()
})

t.test('a large write is on its way before the rest of it is here', async t => {
  const {path, device} = await serve(t, {sizeBytes: 4 * MIB})
  const client = await NbdClient.open(path)
  const bytes = request({command: CMD.WRITE, offset: 4096, payload: Buffer.alloc(MIB, 1), cookie: 5n})
  const before = device.inFlight
  device.mode = 'held'
  const batch = 28 + 256 * 1024
  client.socket.write(bytes.subarray(0, batch - 1))
  await new Promise(resolve => setTimeout(resolve, 20))
  t.equal(device.inFlight, before, 'a little is not worth a request')
  client.socket.write(bytes.subarray(batch - 1, batch))
  await until(() => device.held === 2, '256 KiB are, in two pieces')
  client.kill()
  device.release()
})
