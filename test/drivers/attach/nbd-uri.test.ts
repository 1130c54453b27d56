import t from 'tap'
import {parseNbdUri} from '../../../src/drivers/attach/nbd-uri.js'
import {endpointOf} from '../../../src/engine/frontends/nbd/endpoint.js'

t.test('what the NBD frontend writes is read back', async t => {
  for (const address of [
    {kind: 'unix', path: '/var/run/longhorn/vol.nbd.sock'},
    {kind: 'unix', path: '/odd path/with+?&=#%.sock'},
    {kind: 'tcp', host: '10.0.0.1', port: 10809},
    {kind: 'tcp', host: '::1', port: 1},
    {kind: 'tcp', host: 'node-1.example', port: 65535},
  ] as const) {
    for (const exportName of ['vol-1', 'a_b.c', '']) {
      t.same(parseNbdUri(endpointOf(address, exportName)), {kind: 'nbd', address, exportName})
    }
  }
})

t.test('the port may be left out', async t => {
  t.same(parseNbdUri('nbd://server/x').address, {kind: 'tcp', host: 'server', port: 10809})
  t.same(parseNbdUri('nbd://[::1]').address, {kind: 'tcp', host: '::1', port: 10809})
})

t.test('everything else is refused, quoting it', async t => {
  for (const uri of ['', 'nbd:', 'nbd:///x', 'nbds://a/b', 'nbd+unix:///x', 'nbd+unix://host/x?socket=/a', 'nbd://h:99999/x', 'nbd://h/x?socket=/a', 'nbd+unix:///%zz?socket=/a', 'nbd+unix:///x?socket=a', '/dev/longhorn/x']) {
    t.throws(() => parseNbdUri(uri), {code: 'LH_USAGE', message: `"${uri}"`}, uri)
  }
})
