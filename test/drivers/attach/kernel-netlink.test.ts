import {performance} from 'node:perf_hooks'
import t from 'tap'
import {
  decodeAttributes,
  decodeMessage,
  encodeAttributes,
  find,
  nested,
  NetlinkSocket,
  text,
  u32,
  u64,
} from '../../../src/drivers/attach/kernel-nbd/generic-netlink.js'
import {linkDead} from '../../../src/drivers/attach/kernel-nbd/nbd-control.js'

/** What the kernel sends when /dev/nbd3 has lost its connection: a message of family 0x1d, command 4, with attribute 1. */
const LINK_DEAD = Buffer.from('1c0000001d000000000000000000000004010000' + '0800010003000000', 'hex')

t.test('attributes as the kernel wants them', async t => {
  t.equal(encodeAttributes([u32(1, 3)]).toString('hex'), '0800010003000000')
  t.equal(encodeAttributes([u64(2, 2 ** 40)]).toString('hex'), '0c0002000000000000010000')
  t.equal(encodeAttributes([text(10, 'vol')]).toString('hex'), '08000a00766f6c00', 'with the zero at the end')
  t.equal(encodeAttributes([text(10, 'v'), u32(1, 1)]).toString('hex'), '06000a0076000000' + '0800010001000000', 'padded to four bytes')
  t.equal(encodeAttributes([nested(7, [nested(1, [u32(1, 5)])])]).toString('hex'), '10000780' + '0c000180' + '0800010005000000')
})

t.test('what is encoded can be decoded', async t => {
  const decoded = decodeAttributes(encodeAttributes([text(10, 'v'), nested(7, [u32(1, 5)]), u64(2, 7)]))
  t.same(decoded.map(({kind}) => kind), [10, 7, 2])
  t.equal(find(decoded, 10)?.toString(), 'v\0')
  t.equal(find(decodeAttributes(find(decoded, 7)!), 1)?.readUInt32LE(), 5)
  t.equal(find(decoded, 3), undefined)
})

t.test('attributes whose length makes no sense', async t => {
  for (const hex of ['03000100', '00000100', '0900010003000000', 'ffff0100']) {
    t.throws(() => decodeAttributes(Buffer.from(hex, 'hex')), {code: 'LH_PROTOCOL'}, hex)
  }
  t.same(decodeAttributes(Buffer.from('0800', 'hex')), [], 'half a header is the end')
})

t.test('a lost connection', async t => {
  t.equal(linkDead(LINK_DEAD), 3)
  t.equal(linkDead(Buffer.concat([LINK_DEAD.subarray(0, 16), Buffer.from([1]), LINK_DEAD.subarray(17)])), undefined, 'another command')
  t.equal(linkDead(LINK_DEAD.subarray(0, 19)), undefined)
  t.equal(decodeMessage(Buffer.alloc(20)), undefined)
})

t.test('this kernel answers', async t => {
  const socket = NetlinkSocket.open()
  t.teardown(() => socket.close())
  const started = performance.now()
  const family = socket.family('nlctrl')
  t.equal(family?.id, 16, 'the family that knows the others')
  t.ok(family?.groups.get('notify'))
  t.equal(socket.family('no-such-family'), undefined)
  t.throws(() => socket.request(16, 99, []), {code: 'ENOTSUP', syscall: 'netlink'})
  t.ok(performance.now() - started < 30_000)
})
