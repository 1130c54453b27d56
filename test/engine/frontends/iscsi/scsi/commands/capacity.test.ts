import t from 'tap'
import {GOOD, be, MiB, serve, serveDevice} from '../support/served-disk.js'
import type {BlockDevice} from '../../../../../../src/protocol/block-device.js'
import {LonghornError} from '../../../../../../src/lib/errors.js'
import {MemoryDevice} from '../../../../support/memory-device.js'

t.test('READ CAPACITY(10) and (16), byte for byte', async t => {
  const {a} = await serve(16 * MiB)
  const ten = await a.send('25 00 00000000 00 00 00 00')
  t.equal(ten.data.toString('hex'), '00007fff00000200')
  const sixteen = await a.send('9e 10 0000000000000000 00000020 00 00')
  t.equal(sixteen.data.toString('hex'), '0000000000007fff' + '00000200' + '00' + '03' + 'c000' + '00'.repeat(16))
  for (const length of [0, 1, 8, 12, 31, 32, 64]) {
    const {status, data} = await a.send(`9e 10 0000000000000000 ${be(length, 4)} 00 00`)
    t.equal(status, GOOD)
    t.equal(data.length, Math.min(32, length))
  }
})

t.test('a disk beyond 2 TiB', async t => {
  const device: BlockDevice = {sizeBytes: 4 * 1024 ** 4, submit: () => undefined, blockStatus: () => Promise.reject(new Error('no'))}
  const {a} = await serveDevice(device, undefined)
  t.equal((await a.send('25 00 00000000 00 00 00 00')).data.toString('hex'), 'ffffffff00000200')
  t.equal((await a.send('9e 10 0000000000000000 00000020 00 00')).data.toString('hex', 0, 8), '00000001ffffffff')
})

t.test('a volume that has grown is told once to each initiator', async t => {
  const {a, join, device} = await serve(MiB, 2 * MiB)
  const b = await join('b')
  device.sizeBytes = 2 * MiB
  t.same(await a.attentions(), ['6/2a/09'])
  t.same(await b.attentions(), ['6/2a/09'])
  t.same(await a.attentions(), [])
  t.equal((await a.send('25 00 00000000 00 00 00 00')).data.toString('hex'), '00000fff00000200')
})

t.test('GET LBA STATUS', async t => {
  const {a} = await serve(MiB)
  await a.send(`8a 00 ${be(16, 8)} ${be(8, 4)} 00 00`, {out: Buffer.alloc(4096, 1)})
  const status = async (lba: number | bigint, length = 256): Promise<string> => {
    const result = await a.send(`9e 12 ${be(lba, 8)} ${be(length, 4)} 00 00`)
    return result.sense === '' ? result.data.toString('hex') : result.sense
  }
  const [free, used, rest] = [`${be(0, 8)}${be(16, 4)}01000000`, `${be(16, 8)}${be(8, 4)}00000000`, `${be(24, 8)}${be(2024, 4)}01000000`]
  t.equal(await status(0), `${be(52, 4)}00000000${free}${used}${rest}`)
  t.equal(await status(0, 24), `${be(20, 4)}00000000${free}`, 'as many as fit')
  t.equal(await status(0, 40), `${be(36, 4)}00000000${free}${used}`)
  t.equal(await status(0, 12), `${be(20, 4)}${'00'.repeat(8)}`, 'at least one is found')
  t.equal(await status(19, 24), `${be(20, 4)}00000000${be(19, 8)}${be(5, 4)}00000000`, 'from the block asked for')
  t.equal(await status(2047, 24), `${be(20, 4)}00000000${be(2047, 8)}${be(1, 4)}01000000`)
  t.equal(await status(2048), '5/21/00')
  t.equal(await status(1n << 63n), '5/21/00')
  t.equal(await status((1n << 64n) - 1n), '5/21/00')
})

t.test('a device that cannot tell what is allocated', async t => {
  class Silent extends MemoryDevice {
    override blockStatus(): Promise<never> {
      return Promise.reject(new LonghornError('IO', 'no replica answers'))
    }
  }
  const {a} = await serveDevice(new Silent(MiB), undefined)
  t.equal((await a.send(`9e 12 ${be(0, 8)} ${be(24, 4)} 00 00`)).sense, '3/11/00')
})
