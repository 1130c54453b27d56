import {createHash, createHmac, randomBytes} from 'node:crypto'
import t from 'tap'
import {PoolSha256} from '../../../src/backup/store/pool-sha256.js'

t.test('the same sums, in the pool or not, in one piece or several', async t => {
  for (const sizes of [[], [10], [100_000], [65_535, 65_536], [100_000, 5], [5, 100_000], [100_000, 200_000]]) {
    const pieces = sizes.map(size => randomBytes(size))
    for (const secret of [undefined, 'text', randomBytes(32)]) {
      const ours = new PoolSha256(secret)
      const expected = secret === undefined ? createHash('sha256') : createHmac('sha256', secret)
      for (const piece of pieces) {
        ours.update(piece)
        expected.update(piece)
      }
      t.equal(Buffer.from(await ours.digest()).toString('hex'), expected.digest('hex'), `${sizes.join('+')} ${typeof secret}`)
      ours.reset()
      ours.update(Buffer.from('again'))
      t.equal((await ours.digest()).length, 32)
    }
  }
})
