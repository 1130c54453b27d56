import {randomBytes} from 'node:crypto'
import t from 'tap'
import {BackupKey} from '../../../src/backup/encryption/backup-keys.js'
import {SEAL_BYTES} from '../../../src/backup/encryption/volume-cipher.js'
import {formatBlockForm, keyIdOf, parseBlockForm} from '../../../src/backup/format/block-form.js'

const MASTER = Buffer.from(Array.from({length: 32}, (_, index) => index))
// Made once, by other code: HKDF and HMAC by Python's standard library, AES-256-GCM by OpenSSL. What is in stores must stay readable.
const VECTOR = {
  keyId: '16a5c6d078b16202',
  volume: 'vol',
  block: Buffer.alloc(4096, 'longhorn'),
  sum: '5cde419f3cbe942bc0c86be0f7735c512af8a87145987f81e0ebd7011f56258c',
  content: 'what was compressed',
  object: '4c48453116a5c6d078b16202000102030405060708090a0bf4c81f78edffc7d5291a0c1bfb1bf101b982434e4a27303e5bcc2774ab2730854a8ba0',
}

t.test('the format stays as it is', async t => {
  const key = BackupKey.from(MASTER)
  const cipher = await key.volumeCipher(VECTOR.volume)
  t.equal(key.id, VECTOR.keyId)
  t.equal(await cipher.blockSum(VECTOR.block), VECTOR.sum)
  t.equal((await cipher.open(Buffer.from(VECTOR.object, 'hex'), VECTOR.sum, 'x')).toString(), VECTOR.content)
})

t.test('sealed and opened', async t => {
  const cipher = await BackupKey.from(randomBytes(32)).volumeCipher('vol')
  const sum = 'a'.repeat(64)
  for (const length of [1, 4096, 2_000_000]) {
    const content = randomBytes(length)
    const object = await cipher.seal(content, sum)
    t.equal(object.length, length + SEAL_BYTES)
    t.ok(content.equals(await cipher.open(object, sum, 'x')))
    t.notOk(object.includes(content.subarray(0, 16)) && length > 16)
    t.notOk(object.equals(await cipher.seal(content, sum)), 'never the same twice')
  }
})

t.test('every byte counts, and so do volume, name and key', async t => {
  const key = BackupKey.from(MASTER)
  const cipher = await key.volumeCipher('vol')
  const object = Buffer.from(VECTOR.object, 'hex')
  for (let at = 0; at < object.length; at++) {
    const changed = Buffer.from(object)
    changed[at]! ^= 1
    await t.rejects(cipher.open(changed, VECTOR.sum, 'x'), {code: 'LH_CORRUPT'}, `byte ${at}`)
  }
  for (const cut of [0, 3, 24, SEAL_BYTES, object.length - 1]) await t.rejects(cipher.open(object.subarray(0, cut), VECTOR.sum, 'x'), {code: 'LH_CORRUPT'})
  await t.rejects(cipher.open(object, `${VECTOR.sum.slice(0, -1)}d`, 'x'), {code: 'LH_CORRUPT', message: /another block/})
  await t.rejects((await key.volumeCipher('lov')).open(object, VECTOR.sum, 'x'), {code: 'LH_CORRUPT'})
  await t.rejects((await BackupKey.from(randomBytes(32)).volumeCipher('vol')).open(object, VECTOR.sum, 'x'), {code: 'LH_CORRUPT', message: /encrypted with key 16a5c6d078b16202/})
})

t.test('names tell nothing to who has no key', async t => {
  const key = BackupKey.from(MASTER)
  const block = Buffer.alloc(4096)
  const one = await (await key.volumeCipher('one')).blockSum(block)
  t.equal(one, await (await key.volumeCipher('one')).blockSum(block))
  t.not(one, await (await key.volumeCipher('two')).blockSum(block))
  t.not(one, await (await BackupKey.from(randomBytes(32)).volumeCipher('one')).blockSum(block))
})

t.test('what records say', async t => {
  for (const text of ['lz4', 'none', 'gzip', `lz4+aes-256-gcm+${VECTOR.keyId}`]) t.equal(formatBlockForm(parseBlockForm(text, 'x')), text)
  t.same(parseBlockForm('', 'x'), {method: 'gzip', keyId: undefined})
  t.equal(keyIdOf(`none+aes-256-gcm+${VECTOR.keyId}`), VECTOR.keyId)
  t.equal(keyIdOf('lz4'), undefined)
  for (const text of ['zstd', 'lz4+', 'lz4+x+0123456789abcdef', 'lz4+aes-256-gcm', 'lz4+aes-256-gcm+0123', '+aes-256-gcm+0123456789abcdef', `lz4+aes-256-gcm+${VECTOR.keyId}+more`, `zstd+aes-256-gcm+${VECTOR.keyId}`]) {
    t.throws(() => parseBlockForm(text, 'x'), {code: 'LH_UNSUPPORTED'}, text)
  }
})
