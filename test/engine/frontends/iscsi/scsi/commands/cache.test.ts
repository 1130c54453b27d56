import t from 'tap'
import {ERRNO, OP} from '../../../../../../src/protocol/block-device.js'
import {CHECK, GOOD, be, MiB, serve} from '../support/served-disk.js'

const END = 16 * MiB / 512

t.test('SYNCHRONIZE CACHE flushes', async t => {
  const {a, device} = await serve()
  for (const cdb of [`35 00 ${be(0, 4)} 00 0000 00`, `35 04 ${be(5, 4)} 00 0001 00`, `91 00 ${be(0, 8)} ${be(0, 4)} 00 00`, `91 00 ${be(END, 8)} ${be(0, 4)} 00 00`]) {
    await a.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})
    t.equal(device.dirty.size, 1)
    t.equal((await a.send(cdb)).status, GOOD, cdb)
    t.equal(device.dirty.size, 0)
  }
  t.equal((await a.send(`35 00 ${be(END, 4)} 00 0001 00`)).sense, '5/21/00')
  t.equal((await a.send(`91 00 ${be(END + 1, 8)} ${be(0, 4)} 00 00`)).sense, '5/21/00')
})

t.test('SYNCHRONIZE CACHE answers when it is done, with IMMED before', async t => {
  const {a, device} = await serve()
  device.mode = 'held'
  const waiting = a.start('35 00 00000000 00 0000 00')
  await a.send('35 02 00000000 00 0000 00')
  t.equal(waiting.finished, 0)
  t.equal(device.held, 2)
  device.release()
  t.equal((await waiting.result).status, GOOD)
})

t.test('a flush that fails', async t => {
  const {a, device} = await serve()
  device.fault = ({op}) => (op === OP.FLUSH ? ERRNO.EIO : 0)
  t.equal((await a.send('35 00 00000000 00 0000 00')).sense, '3/0c/00')
  t.equal((await a.send('1b 00 00 00 00 00')).sense, '3/0c/00')
})

t.test('a flush that fails behind its answer fails the next command of that session', async t => {
  const {a, join, device} = await serve()
  const b = await join('b')
  const later = '35 02 00000000 00 0000 00'
  const settle = (): Promise<void> => new Promise(resolve => setImmediate(resolve))
  device.fault = ({op}) => (op === OP.FLUSH ? ERRNO.EIO : 0)
  t.equal((await a.send(later)).status, GOOD)
  await settle()
  device.records = []
  t.equal((await b.send('00 00 00 00 00 00')).status, GOOD, 'not those of others')
  const {status, sense, senseBytes} = await a.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})
  t.same([status, sense, senseBytes[0]], [CHECK, '3/0c/00', 0x71])
  t.same(device.records, [], 'which is not carried out')
  t.equal((await a.send('2a 00 00000000 00 0001 00', {out: Buffer.alloc(512)})).status, GOOD, 'once')
  t.comment('several are told as one, also to REQUEST SENSE, and descriptors say it in their way')
  device.mode = 'held'
  for (let count = 0; count < 3; count++) t.equal((await a.send(later)).status, GOOD)
  device.release()
  await settle()
  t.equal((await a.send('03 01 00 00 ff 00')).data.toString('hex', 0, 4), '73030c00')
  t.equal((await a.send('00 00 00 00 00 00')).status, GOOD)
})

t.test('PRE-FETCH looks at the range and does nothing', async t => {
  const {a, device} = await serve()
  device.records = []
  t.equal((await a.send(`34 00 ${be(0, 4)} 00 0010 00`)).status, GOOD)
  t.equal((await a.send(`34 02 ${be(0, 4)} 1f 0010 00`)).status, GOOD)
  t.equal((await a.send(`90 02 ${be(0, 8)} ${be(0, 4)} 03 00`)).status, GOOD)
  t.equal((await a.send(`34 00 ${be(END, 4)} 00 0001 00`)).sense, '5/21/00')
  t.equal((await a.send(`90 00 ${be(1n << 63n, 8)} ${be(1, 4)} 00 00`)).sense, '5/21/00')
  t.same(device.records, [])
})

t.test('START STOP UNIT: stopping is a flush, all else is not for this disk', async t => {
  const {a, device} = await serve()
  for (const [byte4, flushes] of [['00', 1], ['01', 0], ['04', 0], ['05', 0]] as const) {
    device.flushes = 0
    t.equal((await a.send(`1b 01 00 00 ${byte4} 00`)).status, GOOD)
    t.equal(device.flushes, flushes)
    t.equal((await a.send('00 00 00 00 00 00')).status, GOOD)
  }
  for (const byte4 of ['02', '03', '10', '21', 'f0']) t.equal((await a.send(`1b 00 00 00 ${byte4} 00`)).sense, '5/24/00')
  for (const prevent of ['00', '01']) t.equal((await a.send(`1e 00 00 00 ${prevent} 00`)).status, GOOD)
})
