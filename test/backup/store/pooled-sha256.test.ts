import {createHash, createHmac, randomBytes} from 'node:crypto'
import t from 'tap'
import {PooledSha256} from '../../../src/backup/store/pooled-sha256.js'

const large = randomBytes(200_000)

t.test('as those of node:crypto, in any pieces', async t => {
  for (const pieces of [[], ['text'], [large], [large, 'x'], ['x', large], [large, large], [large.subarray(7), new Uint8Array(3).buffer]] as const) {
    const [hash, hmac] = [createHash('sha256'), createHmac('sha256', 'secret')]
    const [ours, keyed] = [new PooledSha256(), new PooledSha256('secret')]
    for (const piece of pieces) {
      const plain = piece instanceof ArrayBuffer ? new Uint8Array(piece) : piece
      hash.update(plain)
      hmac.update(plain)
      ours.update(piece)
      keyed.update(piece)
    }
    t.same(Buffer.from(await ours.digest()), hash.digest())
    t.same(Buffer.from(await keyed.digest()), hmac.digest())
  }
})

t.test('from the beginning again', async t => {
  const ours = new PooledSha256()
  ours.update(large)
  ours.reset()
  ours.update('text')
  t.same(Buffer.from(await ours.digest()), createHash('sha256').update('text').digest())
})
