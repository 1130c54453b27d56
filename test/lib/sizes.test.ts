import fc from 'fast-check'
import t from 'tap'
import {formatSize, parseSize} from '../../src/lib/sizes.js'

t.test('units are binary however they are written', async t => {
  const sizes: Record<string, number> = {
    '0': 0,
    '4096': 4096,
    '512b': 512,
    '42kb': 42 * 1024,
    '512m': 512 * 1024 ** 2,
    '2g': 2 * 1024 ** 3,
    '2G': 2 * 1024 ** 3,
    '1GB': 1024 ** 3,
    '1Gi': 1024 ** 3,
    '1GiB': 1024 ** 3,
    '1.5 GiB': 1.5 * 1024 ** 3,
    ' 3t ': 3 * 1024 ** 4,
    '0.5k': 512,
    '7p': 7 * 1024 ** 5,
  }
  for (const [text, bytes] of Object.entries(sizes)) t.equal(parseSize(text), bytes, text)
})

t.test('what is not a size is refused, and the error quotes it', async t => {
  for (const text of ['', 'g', '-1', '+1', '1x', '1.', '.5g', '1e3', '0x10', '1 2', '1gg', '1ib', '1i', 'NaN', '1,5g']) {
    t.throws(() => parseSize(text), {code: 'LH_USAGE', message: `invalid size "${text}"`}, text)
  }
})

t.test('a fraction of a byte is refused', async t => {
  t.throws(() => parseSize('1.5'), {code: 'LH_USAGE', message: /whole number/})
  t.throws(() => parseSize('0.3k'), {code: 'LH_USAGE', message: /whole number/})
})

t.test('what a number cannot count exactly is refused', async t => {
  t.equal(parseSize('9007199254740991'), Number.MAX_SAFE_INTEGER)
  for (const text of ['9007199254740992', '8p', '1e', '99999999999999999999']) t.throws(() => parseSize(text), {code: 'LH_USAGE'}, text)
})

t.test('every whole number of bytes reads back as itself', async () => {
  fc.assert(fc.property(fc.maxSafeNat(), bytes => parseSize(String(bytes)) === bytes))
})

t.test('any text is either a safe number of bytes or a usage error', async () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[\d.]{1,5} ?[kmgtpeibKMGTPEIB]{0,3}$/)), text => {
      try {
        const bytes = parseSize(text)
        return Number.isSafeInteger(bytes) && bytes >= 0
      } catch (error) {
        return (error as {code?: string}).code === 'LH_USAGE'
      }
    }),
  )
})

t.test('sizes for people', async t => {
  const sizes: [number | bigint, string][] = [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [1024 ** 2 - 1, '1 MiB'],
    [2 * 1024 ** 3, '2 GiB'],
    [1n << 60n, '1 EiB'],
  ]
  for (const [bytes, text] of sizes) t.equal(formatSize(bytes), text)
})

t.test('what is printed for people reads back to within its one decimal', async () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), bytes => {
      // One decimal of a unit may be a fraction of a byte, which parseSize refuses; so compare by hand.
      const [value = '', unit = ''] = formatSize(bytes).split(' ')
      const back = Number(value) * 1024 ** ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'].indexOf(unit)
      return Math.abs(back - bytes) <= bytes * 0.05 && Number(value) < 1024
    }),
  )
})
