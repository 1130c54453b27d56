import {createHash, randomBytes} from 'node:crypto'
import t from 'tap'
import {sha512} from '../../../src/lib/sys/sha512.js'

t.test('as the one of node:crypto, of any number at once', async t => {
  const data = [0, 1, 63, 64, 4096, 2 * 1024 ** 2 + 1].map(bytes => randomBytes(bytes))
  // A part of a buffer, as blocks are.
  data.push(randomBytes(10_000).subarray(17, 9000))
  const digests = await Promise.all(data.map(one => sha512(one)))
  t.same(digests, data.map(one => createHash('sha512').update(one).digest()))
})
