import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {CHECK, GOOD, MiB, MemoryStore, serve, serveDevice, hex} from '../support/served-disk.js'
import {MemoryDevice} from '../../../../support/memory-device.js'

const ERASE = '48 02 00 00 00 00 00 0000 00'
const ERASE_NOW = '48 82 00 00 00 00 00 0000 00'
const ERASE_LEAVABLE = '48 22 00 00 00 00 00 0000 00'
const LEAVE = '48 1f 00 00 00 00 00 0000 00'
const READY = '00 00 00 00 00 00'
const IN_PROGRESS = '2/04/1b'
const FAILED = '3/31/03'

t.test('makes all of the disk zeros', async t => {
  const {a, device, store} = await serve()
  device.bytes.fill(9)
  device.records = []
  t.equal((await a.send(ERASE)).status, GOOD)
  t.ok(device.bytes.every(byte => byte === 0))
  t.ok(device.records.filter(({op}) => op === OP.WRITE_ZEROES).every(({noUnmap}) => !noUnmap))
  t.equal(device.records.at(-1)!.op, OP.FLUSH)
  t.equal(store.saved?.sanitizing, false)
  t.equal((await a.send(READY)).status, GOOD)
})

t.test('nothing else goes on meanwhile, and REQUEST SENSE tells how far it is', async t => {
  const {a, join, device} = await serve(512 * MiB)
  const b = await join('b')
  device.mode = 'held'
  const read = b.start('28 00 00000000 00 0001 00', {in: 512})
  t.equal((await a.send(ERASE_NOW)).status, GOOD)
  const {sense, senseBytes} = await a.send(READY)
  t.equal(sense, IN_PROGRESS)
  t.equal(senseBytes.toString('hex', 15, 18), '800000')
  t.equal(device.held, 1, 'what was under way ends first')
  device.release()
  t.equal((await read.result).status, GOOD)
  const progress = new Set<number>()
  for (;;) {
    const {data} = await b.send('03 00 00 00 ff 00')
    if (data[2] === 0) break
    t.equal(data.toString('hex', 12, 14), '041b')
    progress.add(data.readUInt16BE(16))
    for (const cdb of ['28 00 00000000 00 0001 00', '2a 00 00000000 00 0001 00', '1a 08 3f 00 ff 00', '5e 00 00 00 00 00 00 0100 00', ERASE]) {
      t.equal((await b.send(cdb, {out: Buffer.alloc(512)})).sense, IN_PROGRESS, cdb)
    }
    t.equal((await b.send('12 00 00 00ff 00')).status, GOOD)
    t.equal((await b.send('a0 00 00 000000 00000100 00 00')).status, GOOD)
    device.release()
    await new Promise(resolve => setImmediate(resolve))
  }
  t.ok(progress.has(0x8000), 'half of it')
  t.equal((await b.send(READY)).status, GOOD)
})

t.test('data that arrives meanwhile is refused, of commands that were accepted before too', async t => {
  const {a, join, device} = await serve()
  const b = await join('b')
  device.bytes.fill(9)
  device.mode = 'held'
  const block = Buffer.alloc(512, 7)
  const late = [
    b.start('2a 00 00000000 00 0001 00', {out: block, late: true}),
    b.start('2a 08 00000000 00 1000 00', {out: Buffer.alloc(2 * MiB, 7), late: true}),
    b.start('41 00 00000000 00 0001 00', {out: block, late: true}),
    b.start('89 00 0000000000000000 000000 01 00 00', {out: Buffer.alloc(1024, 9), late: true}),
    b.start('8b 00 0000000000000000 00000001 00 00', {out: block, late: true}),
    b.start('9c 00 0000000000000000 0000 0008 00 00', {out: Buffer.alloc(4096, 7), late: true}),
  ]
  t.equal((await a.send(ERASE_NOW)).status, GOOD)
  for (const task of late) t.equal((await task.result).sense, IN_PROGRESS)
  device.mode = 'now'
  device.release()
  while ((await b.send(READY)).sense === IN_PROGRESS) await new Promise(resolve => setImmediate(resolve))
  t.ok(device.bytes.every(byte => byte === 0))
  t.equal((await b.send('2a 00 00000000 00 0001 00', {out: block})).status, GOOD)
})

t.test('a reset and the end of the session do not stop it', async t => {
  const {a, join, device, server} = await serve()
  device.bytes.fill(9)
  device.mode = 'held'
  const task = a.start(ERASE)
  await new Promise(resolve => setImmediate(resolve))
  task.abort()
  await task.result
  t.ok(device.held > 0, 'the command ends, the erasing does not')
  server.reset(a.nexus, undefined)
  a.leave()
  const b = await join('b')
  t.equal((await b.send(READY)).sense, IN_PROGRESS)
  device.mode = 'now'
  device.release()
  while ((await b.send(READY)).sense === IN_PROGRESS) await new Promise(resolve => setImmediate(resolve))
  t.ok(device.bytes.every(byte => byte === 0))
  t.equal((await b.send(READY)).status, GOOD)
})

t.test('one that fails', async t => {
  for (const leavable of [false, true]) {
    const {a, device, store} = await serve()
    device.fault = ({op}) => (op === OP.WRITE_ZEROES ? ERRNO.EIO : 0)
    t.equal((await a.send(leavable ? ERASE_LEAVABLE : ERASE)).sense, FAILED)
    t.equal(store.saved?.sanitizing, true)
    t.equal((await a.send(READY)).sense, FAILED)
    t.equal((await a.send('28 00 00000000 00 0001 00')).sense, FAILED)
    t.equal((await a.send('03 00 00 00 ff 00')).data.toString('hex', 12, 14), '3103')
    device.fault = () => 0
    t.equal((await a.send(LEAVE)).sense, leavable ? '' : '5/24/00')
    t.equal((await a.send(READY)).sense, leavable ? '' : FAILED)
    t.equal((await a.send(ERASE)).status, GOOD)
    t.equal((await a.send(READY)).status, GOOD)
    t.equal((await a.send(LEAVE)).status, GOOD, 'there is nothing to leave')
    t.equal(store.saved?.sanitizing, false)
  }
})

t.test('one that an engine did not finish has failed', async t => {
  const store = new MemoryStore()
  const device = new MemoryDevice(MiB)
  const {a} = await serveDevice(device, store)
  device.mode = 'held'
  a.start(ERASE)
  await new Promise(resolve => setImmediate(resolve))
  const {a: again} = await serveDevice(new MemoryDevice(MiB), store)
  t.equal((await again.send(READY)).sense, FAILED)
  t.equal((await again.send(ERASE)).status, GOOD)
  t.equal((await again.send(READY)).status, GOOD)
  a.leave()
})

t.test('one that cannot be written down is not begun', async t => {
  const {a, device, store} = await serve()
  device.bytes.fill(9)
  store.broken = true
  t.equal((await a.send(ERASE)).sense, '4/44/00')
  t.ok(device.bytes.every(byte => byte === 9))
  t.equal((await a.send(READY)).status, GOOD)
  store.broken = false
  t.equal((await a.send(ERASE)).status, GOOD)
})

t.test('what is refused', async t => {
  const {a, device} = await serve()
  device.records = []
  for (const action of ['01', '03', '00', '1e']) t.equal((await a.send(`48 ${action} 00 00 00 00 00 0000 00`)).sense, '5/24/00')
  for (let byte = 1; byte < 7; byte++) {
    const cdb = hex(ERASE)
    cdb[byte]! |= 0x40
    t.equal((await a.send(cdb)).sense, '5/24/00')
  }
  t.equal((await a.send('48 02 00 00 00 00 00 0008 00', {out: Buffer.alloc(8)})).sense, '5/24/00')
  t.equal((await a.send('48 1f 00 00 00 00 00 0008 00', {out: Buffer.alloc(8)})).status, CHECK)
  t.same(device.records, [])
})
