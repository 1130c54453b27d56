import {randomBytes} from 'node:crypto'
import t from 'tap'
import {crc32c} from '../../../../../src/engine/frontends/iscsi/transport/crc32c.js'
import {hex, slowCrc32c} from './support/wire.js'

const crc = (bytes: Buffer): number => crc32c(bytes, 0, bytes.length)

t.test('the examples of RFC 7143, appendix A.4', async t => {
  t.equal(crc(Buffer.alloc(32)), 0x8a9136aa)
  t.equal(crc(Buffer.alloc(32, 0xff)), 0x62a8ab43)
  t.equal(crc(Buffer.from(Array.from({length: 32}, (_, index) => index))), 0x46dd794e)
  t.equal(crc(Buffer.from(Array.from({length: 32}, (_, index) => 31 - index))), 0x113fdb5c)
  const read = hex('01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000')
  t.equal(crc(read), 0xd9963a56)
  t.equal(crc(Buffer.from('123456789')), 0xe3069283)
})

t.test('every length and alignment', async t => {
  const whole = randomBytes(400)
  for (let offset = 0; offset < 4; offset++) {
    const bytes = whole.subarray(offset)
    for (let start = 0; start < 20; start++) {
      for (let end = start; end < 120; end++) {
        if (crc32c(bytes, start, end) !== slowCrc32c(bytes.subarray(start, end))) t.fail(`[${start}, ${end}) at ${offset}`)
      }
    }
  }
  t.pass()
})

t.test('in parts', async t => {
  const bytes = randomBytes(1000)
  for (const cut of [0, 1, 15, 16, 17, 500, 999, 1000]) t.equal(crc32c(bytes, cut, 1000, crc32c(bytes, 0, cut)), slowCrc32c(bytes))
})
