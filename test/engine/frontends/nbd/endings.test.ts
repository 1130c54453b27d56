import {existsSync} from 'node:fs'
import t from 'tap'
import {slabs} from '../../../../src/lib/net/slab.js'
import {OP} from '../../../../src/protocol/block-device.js'
import {until} from '../../../support/until.js'
import {NbdClient} from './support/nbd-client.js'
import {serve} from './support/served.js'
import {CMD, ERR, FLAG, request, u32} from './support/wire.js'

const MIB = 1024 * 1024

t.test('DISC: what was asked before is done and answered, then the connection ends', async t => {
  const {path, device, reasons} = await serve(t)
  const client = await NbdClient.open(path)
  device.mode = 'held'
  const write = client.write(0, Buffer.alloc(MIB, 1), true)
  const read = client.read(4096, 2 * MIB)
  client.socket.write(Buffer.concat([request({command: CMD.DISC}), Buffer.from('and more that nobody looks at')]))
  await until(() => device.held >= 17, 'the requests have arrived')
  device.mode = 'now'
  device.release(held => held.toReversed())
  await Promise.all([write, read])
  await client.rest()
  t.equal(device.dirty.size, 0)
  t.same(reasons(), [])
})

t.test('a client that is gone: its results are dropped, its objects are not reused too early', async t => {
  const {path, device, server} = await serve(t, {sizeBytes: 64 * MIB})
  device.mode = 'held'
  const slabsBefore = slabs.inUse
  for (let round = 0; round < 3; round++) {
    const client = await (round === 1 ? NbdClient.openSimple(path) : NbdClient.open(path))
    const requests = [
      client.request({command: CMD.READ, length: 4096}),
      client.request({command: CMD.READ, length: 4 * MIB}),
      client.request({command: CMD.WRITE, payload: Buffer.alloc(MIB, 1), flags: FLAG.FUA}),
      client.request({command: CMD.FLUSH}),
      client.request({command: CMD.WRITE_ZEROES, length: MIB}),
    ]
    const before = device.held
    await until(() => device.held >= before + 42, 'they are with the device')
    client.kill()
    await Promise.allSettled(requests)
    await until(() => server.connections === 0, 'the connection is gone')
    // Half of it finishes now, the rest when the next client is at work.
    device.release(held => held.filter((_, index) => index % 2 === 0))
  }
  device.mode = 'now'
  const client = await NbdClient.open(path)
  const write = client.write(0, Buffer.alloc(MIB, 7))
  device.release()
  await write
  t.equal((await client.read(0, MIB)).length, MIB)
  t.equal(device.inFlight, 0)
  await client.read(0, 512)
  await client.close()
  t.ok(slabs.inUse <= slabsBefore + 1, `no slab is lost: ${slabs.inUse} after ${slabsBefore}`)
})

t.test('a client that is gone in the middle of a payload', async t => {
  const {path, device, server, reasons} = await serve(t)
  const client = await NbdClient.open(path)
  const bytes = request({command: CMD.WRITE, payload: Buffer.alloc(MIB, 1), cookie: 1n})
  client.socket.write(bytes.subarray(0, 300_000))
  await until(() => device.bytes[65_535] === 1, 'some of it is written')
  client.socket.write(bytes.subarray(300_000, 300_100))
  client.socket.end()
  await until(() => server.connections === 0, 'the connection is gone')
  t.match(reasons(), [/middle of a message/])
})

t.test('close: requests that come in meanwhile are refused', async t => {
  const {path, device, server} = await serve(t)
  const client = await NbdClient.open(path)
  device.mode = 'held'
  const inFlight = client.write(0, Buffer.alloc(4096, 1))
  await until(() => device.held === 1, 'it has arrived')
  const closing = server.close(10_000)
  t.equal((await client.request({command: CMD.READ, length: 4096})).error, ERR.ESHUTDOWN)
  t.equal((await client.request({command: CMD.WRITE, payload: Buffer.alloc(MIB)})).error, ERR.ESHUTDOWN, 'payload and all')
  device.mode = 'now'
  device.release()
  await inFlight
  await closing
  await client.rest()
  t.notOk(existsSync(path))
})

t.test('close: after its time, what is in flight is refused too', async t => {
  for (const open of [(path: string) => NbdClient.open(path), (path: string) => NbdClient.openSimple(path)]) {
    const {path, device, server, reasons} = await serve(t)
    const client = await open(path)
    device.mode = 'held'
    device.records = []
    const requests = Promise.all([
      client.request({command: CMD.READ, length: 4096}),
      client.request({command: CMD.READ, length: MIB}),
      client.request({command: CMD.WRITE, payload: Buffer.alloc(MIB)}),
      client.request({command: CMD.FLUSH}),
    ])
    await until(() => device.records?.at(-1)?.op === OP.FLUSH, 'they have arrived')
    await server.close(20)
    for (const {error} of await requests) t.equal(error, ERR.ESHUTDOWN)
    await client.rest()
    device.release()
    t.equal(device.inFlight, 0)
    t.match(reasons(), [/cut off after 20 ms/])
  }
})

t.test('close: half a payload is waited for, but not for ever', async t => {
  const bytes = request({command: CMD.WRITE, payload: Buffer.alloc(MIB, 1), cookie: 1n})
  {
    const {path, device, server} = await serve(t)
    const client = await NbdClient.open(path)
    client.socket.write(bytes.subarray(0, 300_000))
    await until(() => device.bytes[65_535] === 1, 'some of it is written')
    const closing = server.close(10_000)
    client.socket.write(bytes.subarray(300_000))
    await closing
    t.equal(device.bytes[MIB - 1], 1)
    client.kill()
  }
  const {path, device, server} = await serve(t)
  const client = await NbdClient.open(path)
  client.socket.write(bytes.subarray(0, 300_000))
  await until(() => device.bytes[65_535] === 1, 'some of it is written')
  await server.close(20)
  await client.rest()
  t.equal(device.bytes[MIB - 1], 0)
})

t.test('close: clients in the handshake, and clients that do not read, do not hold it up', async t => {
  const {path, server} = await serve(t, {sizeBytes: 64 * MIB})
  const silent = await NbdClient.connect(path)
  const haggling = await NbdClient.connect(path)
  haggling.socket.write(u32(3))
  const deaf = await NbdClient.open(path)
  deaf.socket.pause()
  deaf.socket.write(Buffer.concat(Array.from({length: 100}, () => request({command: CMD.READ, length: MIB}))))
  await until(() => server.connections === 3, 'all are there')
  await new Promise(resolve => setTimeout(resolve, 50))
  const started = performance.now()
  await server.close(50)
  t.ok(performance.now() - started < 30_000)
  t.equal(server.connections, 0)
  await silent.rest()
  await haggling.rest()
  deaf.kill()
})
