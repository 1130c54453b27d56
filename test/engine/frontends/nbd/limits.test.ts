import {randomBytes} from 'node:crypto'
import {once} from 'node:events'
import {Worker} from 'node:worker_threads'
import t from 'tap'
import {slabs} from '../../../../src/lib/net/slab.js'
import {until} from '../../../support/until.js'
import {NbdClient} from './support/nbd-client.js'
import {serve} from './support/served.js'
import {CMD, fullHandshake, request} from './support/wire.js'

const MIB = 1024 * 1024

/** Resolves when `value` has stopped changing. */
async function settled(value: () => number): Promise<number> {
  for (let before = -1; before !== value(); ) {
    before = value()
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  return value()
}

t.test('a client that does not take its replies: what is kept for it is bounded', async t => {
  const {path, device, server} = await serve(t, {sizeBytes: 64 * MIB})
  const before = slabs.inUse
  for (const [kind, length, count] of [['structured', 4096, 20_000], ['structured', MIB, 200], ['simple', MIB, 200], ['simple', 32 * MIB, 10]] as const) {
    const client = await (kind === 'structured' ? NbdClient.open(path) : NbdClient.openSimple(path))
    device.records = []
    client.socket.pause()
    client.socket.write(Buffer.concat(Array.from({length: count}, (_, index) => request({command: CMD.READ, offset: (index * length) % (32 * MIB), length}))))
    await settled(() => device.records?.length ?? 0)
    const asked = (device.records ?? []).reduce((sum, record) => sum + record.length, 0)
    // Its share, what the sockets hold, and one request.
    t.ok(asked > 0 && asked < 16 * MIB + 12 * MIB + Math.max(length, MIB), `${kind}, ${length}: ${(asked / MIB).toFixed(1)} MiB were read`)
    t.ok(slabs.inUse * slabs.slabBytes < 64 * MIB, `and ${slabs.inUse} slabs are in use`)
    client.kill()
    await until(() => server.connections === 0, 'the connection is gone')
    // The device in memory gives its own back when it is next asked for something.
    const other = await NbdClient.open(path)
    await other.read(0, 512)
    await other.close()
    t.ok(slabs.inUse <= before + 1, `and then ${slabs.inUse}`)
  }
})

t.test('a client that takes its replies late gets them all', async t => {
  const {path, device} = await serve(t, {sizeBytes: 64 * MIB})
  randomBytes(64 * MIB).copy(device.bytes)
  const client = await NbdClient.open(path)
  const other = await NbdClient.open(path)
  client.socket.pause()
  const reads = Array.from({length: 300}, (_, index) => ({offset: index * 160 * 1024 + index, length: index % 3 === 0 ? 4096 : 300_000}))
  const answers = reads.map(({offset, length}) => client.read(offset, length))
  await settled(() => device.inFlight)
  // What is waiting must not be touched by what goes on elsewhere.
  for (let round = 0; round < 50; round++) await other.write(60 * MIB, randomBytes(MIB))
  await other.read(0, 8 * MIB)
  client.socket.resume()
  for (const [index, {offset, length}] of reads.entries()) {
    const data = await answers[index]!
    if (!data.equals(device.bytes.subarray(offset, offset + length))) t.fail(`read ${index} is wrong`)
  }
  t.pass('as they were')
  await client.close()
  await other.close()
})

t.test('a device that does not answer: what waits for it is bounded', async t => {
  const {path, device} = await serve(t, {sizeBytes: 64 * MIB})
  const client = await NbdClient.open(path)
  device.mode = 'held'
  const small = Array.from({length: 1000}, (_, index) => client.write(index * 512, Buffer.alloc(512, index)))
  await until(() => device.held === 256, 'requests come up to the limit')
  await settled(() => device.held)
  t.equal(device.held, 256)
  device.mode = 'now'
  device.release()
  await Promise.all(small)
  t.equal(device.bytes[999 * 512], 999 % 256)

  device.mode = 'held'
  device.mostBytesInFlight = 0
  const data = randomBytes(4 * MIB)
  const large = Array.from({length: 12}, (_, index) => client.write(index * 4 * MIB + 512, data))
  await settled(() => device.held)
  t.ok(device.mostBytesInFlight > 15 * MIB && device.mostBytesInFlight <= 16 * MIB + 128 * 1024, `${device.mostBytesInFlight / MIB} MiB`)
  const timer = setInterval(() => device.release(held => held.toReversed(), 7), 1)
  await Promise.all(large)
  clearInterval(timer)
  for (let index = 0; index < 12; index++) {
    const at = index * 4 * MIB + 512
    if (!device.bytes.subarray(at, at + data.length).equals(data)) t.fail(`write ${index} is wrong`)
  }
  device.mode = 'now'
  device.release()
  await client.close()
})

t.test('the more connections there are, the less each may use', async t => {
  const {path, device, server} = await serve(t, {sizeBytes: 64 * MIB})
  const clients = await Promise.all(Array.from({length: 64}, () => NbdClient.open(path)))
  device.mode = 'held'
  const [first] = clients
  for (let index = 0; index < 64; index++) void first?.read(index * MIB, MIB).catch(() => undefined)
  await settled(() => device.held)
  t.equal(device.mostBytesInFlight, 4 * MIB)
  device.mode = 'now'
  device.release()
  const large = await first!.read(0, 32 * MIB)
  t.equal(large.length, 32 * MIB, 'a single request may always be as large as the protocol allows')
  for (const client of clients) client.kill()
  await until(() => server.connections === 0, 'all are gone')
  const alone = await NbdClient.open(path)
  device.mode = 'held'
  for (let index = 0; index < 64; index++) void alone.read(index * MIB, MIB).catch(() => undefined)
  await until(() => device.held === 128, 'and the more again when they have gone')
  alone.kill()
  device.release()
})

t.test('a client that is as fast as the device does not keep the others waiting', async t => {
  const {path, device} = await serve(t, {sizeBytes: 8 * MIB})
  const other = await NbdClient.open(path)
  device.records = []
  // On a thread of its own: it takes its replies while the server is busy.
  const flood = new Worker(
    `const {workerData, parentPort} = require('node:worker_threads')
     const socket = require('node:net').connect(workerData.path, () => socket.write(workerData.bytes))
     let received = 0
     socket.on('data', chunk => {
       received += chunk.length
       if (received >= workerData.expected) socket.destroy()
     }).on('close', () => parentPort.postMessage(received))`,
    {eval: true, workerData: {path, bytes: Buffer.concat([fullHandshake(), ...Array.from({length: 8000}, () => request({command: CMD.READ, length: 128 * 1024}))]), expected: 8000 * 128 * 1024}},
  )
  const done = once(flood, 'message')
  await until(() => (device.records?.length ?? 0) > 0, 'it has begun')
  let served = 0
  while ((device.records?.length ?? 0) - served < 8000) {
    await other.read(0, 512)
    served++
  }
  await done
  t.ok(served > 10, `${served} requests of another client were served meanwhile`)
  await other.close()
})
