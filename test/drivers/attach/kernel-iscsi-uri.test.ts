import t from 'tap'
import {formatEndpoint, parseEndpoint, withChapFile} from '../../../src/drivers/attach/endpoint-uri.js'
import {parseIscsiUri} from '../../../src/drivers/attach/kernel-iscsi/iscsi-uri.js'
import {endpointOf, targetName} from '../../../src/engine/frontends/iscsi/iscsi-frontend.js'

t.test('what the frontend announces is understood', async t => {
  for (const host of ['10.0.0.5', '::1', 'node-1.example']) {
    const address = {kind: 'tcp', host, port: 3260} as const
    const iqn = targetName('vol_1.a-b')
    t.same(parseIscsiUri(endpointOf(address, iqn)), {kind: 'iscsi', address, iqn: 'iqn.2019-10.io.longhorn:vol:1.a-b', lun: 1})
  }
})

t.test('without a port, and with other targets', async t => {
  t.match(parseIscsiUri('iscsi://10.0.0.5/iqn.2000-01.com.example:disk/0'), {address: {host: '10.0.0.5', port: 3260}, lun: 0})
  t.match(parseIscsiUri('iscsi://[fd00::5]/eui.02004567A425678D/16383'), {address: {host: 'fd00::5', port: 3260}, iqn: 'eui.02004567A425678D', lun: 16383})
  t.match(parseIscsiUri('iscsi://[fd00::5]:1/naa.5001/1'), {address: {host: 'fd00::5', port: 1}})
})

t.test('what is no such URI', async t => {
  for (const uri of [
    'iscsi://10.0.0.5:3260/iqn.2019-10.io.longhorn:vol',
    'iscsi://10.0.0.5:3260/vol/1',
    'iscsi://10.0.0.5:3260/iqn.2019-10.io.longhorn:v%2fl/1',
    'iscsi://10.0.0.5:3260/iqn.2019-10.io.longhorn:v ol/1',
    'iscsi://10.0.0.5:3260/iqn.2019-10.io.longhorn:vol/16384',
    'iscsi://10.0.0.5:99999/iqn.2019-10.io.longhorn:vol/1',
    'iscsi://:3260/iqn.2019-10.io.longhorn:vol/1',
    'iscsi:///iqn.2019-10.io.longhorn:vol/1',
    `iscsi://10.0.0.5/iqn.${'x'.repeat(224)}/1`,
  ]) {
    t.throws(() => parseIscsiUri(uri), {code: 'LH_USAGE'}, uri)
  }
})

t.test('a password in a URI is not repeated', async t => {
  try {
    parseIscsiUri('iscsi://user%hunter2@10.0.0.5/iqn.2019-10.io.longhorn:vol/1')
    t.fail('accepted')
  } catch (error) {
    t.notMatch((error as Error).message, /hunter2/)
  }
})

t.test('any endpoint', async t => {
  for (const uri of ['nbd://10.0.0.5:10809/vol', 'nbd+unix:///vol?socket=/run/x.sock', 'iscsi://10.0.0.5:3260/iqn.2019-10.io.longhorn:vol/1']) {
    t.equal(formatEndpoint(parseEndpoint(uri)), uri)
  }
  t.throws(() => parseEndpoint('http://10.0.0.5/vol'), {code: 'LH_USAGE'})
  t.match(withChapFile(parseEndpoint('iscsi://10.0.0.5/iqn.2019-10.io.longhorn:vol/1'), '/etc/chap'), {chapFile: '/etc/chap'})
  t.throws(() => withChapFile(parseEndpoint('nbd://10.0.0.5/vol'), '/etc/chap'), {code: 'LH_USAGE'})
})
