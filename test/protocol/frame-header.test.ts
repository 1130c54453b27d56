import fc from 'fast-check'
import t from 'tap'
import {ERRNO} from '../../src/protocol/block-device.js'
import {errnoOfText, errorText, FRAME, FRAME_HEADER_BYTES, frameOffset, writeFrameHeader} from '../../src/protocol/frame.js'
import {encodeFrame} from '../support/frames.js'

t.test('the bytes of a header', async t => {
  const cases: [hex: string, ...fields: [number, number, number, number, number]][] = [
    // The reference's example: a write of 512 bytes at 4096, sequence 3.
    ['011b03000000010000000010000000000000' + '0002000000020000', 3, FRAME.WRITE, 4096, 512, 512],
    ['011b00000000000000000000000000000000' + '0000000000000000', 0, FRAME.READ, 0, 0, 0],
    ['011bffffffff0600000000000000000000000000000000000000', 0xffffffff, FRAME.PING, 0, 0, 0],
    ['011b78563412020000000090785634120100' + 'efbeaddeefbeadde', 0x12345678, FRAME.RESPONSE, 0x112345678_9000, 0xdeadbeef, 0xdeadbeef],
    ['011b0100000007010000f0ffffffffff1f00' + '00f0ffff00000000', 1, 0x107, Number.MAX_SAFE_INTEGER - 15, 0xfffff000, 0],
    ['011b0500000003000000ffffffffffffffff' + '1200000012000000', 5, FRAME.ERROR, -1, 18, 18],
  ]
  for (const [hex, ...fields] of cases) {
    const bytes = Buffer.alloc(FRAME_HEADER_BYTES + 3, 0xaa)
    writeFrameHeader(bytes, 2, ...fields)
    t.equal(bytes.toString('hex'), `aaaa${hex}aa`, hex)
  }
})

t.test('any header is what a simpler codec writes', async t => {
  const u32 = fc.integer({min: 0, max: 0xffffffff})
  fc.assert(
    fc.property(u32, u32, fc.maxSafeNat(), u32, u32, (sequence, type, offset, size, payloadLength) => {
      const bytes = Buffer.alloc(FRAME_HEADER_BYTES)
      writeFrameHeader(bytes, 0, sequence, type, offset, size, payloadLength)
      t.same(bytes, encodeFrame({sequence, type, offset: BigInt(offset), size, payloadLength}))
      t.equal(frameOffset(bytes, 0), offset)
    }),
  )
})

t.test('an offset that no volume has is -1', async t => {
  for (const offset of [-1n, -4096n, -(2n ** 63n), 2n ** 53n, 2n ** 62n]) {
    t.equal(frameOffset(encodeFrame({offset}), 0), -1, `${offset}`)
  }
  t.equal(frameOffset(encodeFrame({offset: 2n ** 53n - 1n}), 0), Number.MAX_SAFE_INTEGER)
})

t.test('errors as text', async t => {
  t.match(errorText(ERRNO.EINVAL), /^EOF:/)
  t.equal(errorText(ERRNO.ENOSPC), 'no space left on device')
  t.equal(errorText(ERRNO.ESHUTDOWN), 'replica no longer exist')
  t.equal(errorText(ERRNO.EIO), 'input/output error')
  t.equal(errnoOfText('write volume-head-000.img: no space left on device'), ERRNO.ENOSPC)
  for (const text of ['', 'EOF: x', 'r/w timeout', 'no space']) t.equal(errnoOfText(text), ERRNO.EIO, text)
})
