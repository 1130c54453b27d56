import fc from 'fast-check'
import t from 'tap'
import {arrivedPieceLength, LEAST_ARRIVED_BYTES, pieceCount, pieceLength} from '../../../src/engine/frontends/cutting.js'
import {MAX_IO_BYTES} from '../../../src/protocol/block-device.js'

const offset = fc.oneof(fc.nat(20_000), fc.maxSafeNat())
const length = fc.oneof(fc.nat(300_000), fc.nat(32 * 1024 * 1024))

t.test('pieces cover the range, are no larger than allowed and are cut at blocks', async t => {
  fc.assert(
    fc.property(offset, length, (start, total) => {
      let at = start
      let count = 0
      for (let left = total; left > 0; count++) {
        const piece = pieceLength(at, left)
        at += piece
        left -= piece
        if (piece < 1 || piece > MAX_IO_BYTES || left < 0 || (left > 0 && at % 4096 !== 0)) return false
      }
      return count === pieceCount(start, total) || total === 0
    }),
  )
  t.equal(pieceCount(0, 0), 1)
  t.equal(pieceCount(1, MAX_IO_BYTES), 1)
  t.equal(pieceCount(1, MAX_IO_BYTES + 1), 2)
})

t.test('what has arrived in part is cut the same way, or waited for', async t => {
  fc.assert(
    fc.property(offset, length, length, (start, left, arrived) => {
      const piece = arrivedPieceLength(start, left, arrived)
      if (piece > Math.min(left, arrived, MAX_IO_BYTES)) return false
      if (arrived >= left) return piece === pieceLength(start, left)
      return piece === 0 ? arrived < LEAST_ARRIVED_BYTES + 4096 : piece >= LEAST_ARRIVED_BYTES && (start + piece) % 4096 === 0
    }),
  )
  t.pass('property holds')
})
