import fc from 'fast-check'
import t from 'tap'
import {formatAddress, formatHostPort, parseAddress, type Address} from '../../src/lib/address.js'

t.test('every way to write an address', async t => {
  const addresses: Record<string, Address> = {
    'tcp://10.0.0.1:10000': {kind: 'tcp', host: '10.0.0.1', port: 10000},
    'localhost:9502': {kind: 'tcp', host: 'localhost', port: 9502},
    'node-1.example.com:0': {kind: 'tcp', host: 'node-1.example.com', port: 0},
    ':9501': {kind: 'tcp', host: '', port: 9501},
    'tcp://:9501': {kind: 'tcp', host: '', port: 9501},
    '[::1]:9502': {kind: 'tcp', host: '::1', port: 9502},
    'tcp://[fe80::1%eth0]:65535': {kind: 'tcp', host: 'fe80::1%eth0', port: 65535},
    'unix:/run/longhorn.sock': {kind: 'unix', path: '/run/longhorn.sock'},
    'unix:///run/longhorn.sock': {kind: 'unix', path: '/run/longhorn.sock'},
  }
  for (const [text, address] of Object.entries(addresses)) t.same(parseAddress(text), address, text)
})

t.test('what is not an address is refused, and the error quotes it', async t => {
  const wrong = [
    '',
    'localhost',
    'localhost:',
    'localhost:http',
    'localhost:-1',
    'localhost:65536',
    'localhost:9501/',
    'http://localhost:9501',
    '::1:9502',
    '[localhost]:1',
    '[]:1',
    '10.0.0.256:1',
    'a..b:1',
    '-a:1',
    'a b:1',
    `${'a'.repeat(254)}:1`,
    'unix:',
    'unix:relative.sock',
    'unix://run/longhorn.sock',
    'unix:/run/',
    'unix:/a\0b',
    `unix:/${'x'.repeat(107)}`,
  ]
  for (const text of wrong) t.throws(() => parseAddress(text), {code: 'LH_USAGE', message: `invalid address "${text}"`}, text)
})

const port = fc.integer({min: 0, max: 65535})
const tcp = fc.record({kind: fc.constant('tcp' as const), host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain(), fc.constant('')), port})
const unix = fc.record({
  kind: fc.constant('unix' as const),
  path: fc.stringMatching(/^(\/[a-zA-Z0-9._-]{1,10}){1,8}$/),
})

t.test('every address reads back as itself', async t => {
  fc.assert(fc.property(fc.oneof(tcp, unix), address => t.same(parseAddress(formatAddress(address)), address)))
})

t.test('without its scheme, a TCP address reads back as itself', async t => {
  fc.assert(fc.property(tcp, address => t.same(parseAddress(formatHostPort(address)), address)))
})

t.test('any text is either an address or a usage error', async () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^(tcp:|unix:)?[/[\]:a.0-9]{0,12}$/)), text => {
      try {
        return ['tcp', 'unix'].includes(parseAddress(text).kind)
      } catch (error) {
        return (error as {code?: string}).code === 'LH_USAGE'
      }
    }),
  )
})
