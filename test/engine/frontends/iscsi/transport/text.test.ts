import t from 'tap'
import {formatPairs, isNodeName, MAX_TEXT_BYTES, parseNumber, parsePairs, TextAssembly} from '../../../../../src/engine/frontends/iscsi/transport/text.js'

const parse = (text: string): [string, string][] => parsePairs(Buffer.from(text)).map(({key, value}) => [key, value])

t.test('pairs', async t => {
  t.same(parse('A=1\0B=two=2\0C=\0'), [['A', '1'], ['B', 'two=2'], ['C', '']])
  t.same(parse('A=1'), [['A', '1']], 'the last one need not be ended')
  t.same(parse('A=1\0\0\0\0'), [['A', '1']], 'padding that was counted')
  t.same(parse(''), [])
  t.same(parse('iSCSIProtocolLevel=1\0'), [['iSCSIProtocolLevel', '1']], 'the one key with a small letter in front')
  t.equal(formatPairs([{key: 'A', value: '1'}, {key: 'B', value: ''}]).toString(), 'A=1\0B=\0')
})

t.test('what is no pair', async t => {
  for (const text of ['A', '=1', '\u00ff=1', 'a b=1', `${'K'.repeat(64)}=1`, `A=${'v'.repeat(256)}`, `CHAP_C=${'v'.repeat(2051)}`]) {
    t.throws(() => parse(text), {code: 'LH_PROTOCOL'}, text.slice(0, 20))
  }
  t.same(parse(`${'K'.repeat(63)}=${'v'.repeat(255)}\0CHAP_R=${'v'.repeat(2050)}`).map(([key]) => key.slice(0, 6)), ['KKKKKK', 'CHAP_R'])
  t.throws(() => parse('A=1\0'.repeat(257)), {code: 'LH_PROTOCOL'})
})

t.test('no value gets into an error', async t => {
  const secret = `very secret ${'x'.repeat(3000)}`
  for (const text of [`CHAP_R=${secret}`, secret, `a b=${secret}`, `Name=${secret}`]) {
    try {
      parse(text)
      t.fail('accepted')
    } catch (error) {
      t.notMatch(String(error), /secret/)
    }
  }
})

t.test('numbers', async t => {
  t.equal(parseNumber('0'), 0)
  t.equal(parseNumber('0x1F'), 31)
  t.equal(parseNumber('0007'), 7)
  for (const text of ['', '-1', '1.0', '1e3', '0x', '0b1', ' 1', '12345678901', '0x123456789', 'NaN']) t.equal(parseNumber(text), undefined, text)
})

t.test('names of nodes', async t => {
  for (const name of ['iqn.2019-10.io.longhorn:vol', 'IQN.2001-04.com.example', 'eui.02004567A425678D', 'naa.52004567BA64678D']) t.ok(isNodeName(name), name)
  for (const name of ['', 'All', 'iqn', 'iqn.', 'aiqn.2001', 'fred']) t.notOk(isNodeName(name), name)
})

t.test('a text in several parts', async t => {
  const assembly = new TextAssembly()
  assembly.add(Buffer.from('abc'))
  assembly.add(Buffer.from('defg'))
  t.equal(assembly.next(5).toString(), 'abcde')
  t.notOk(assembly.isEmpty)
  t.equal(assembly.next(5).toString(), 'fg')
  t.ok(assembly.isEmpty)
  t.equal(assembly.next(5).toString(), '')
  assembly.add(Buffer.alloc(MAX_TEXT_BYTES))
  t.throws(() => assembly.add(Buffer.from('x')), {code: 'LH_PROTOCOL'})
  assembly.clear()
  t.equal(assembly.take().length, 0)
})
