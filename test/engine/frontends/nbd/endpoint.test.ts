import {statSync} from 'node:fs'
import t from 'tap'
import {Budget} from '../../../../src/engine/frontends/budget.js'
import {defaultAddress, endpointOf} from '../../../../src/engine/frontends/nbd/endpoint.js'
import {nbdFrontend} from '../../../../src/engine/frontends/nbd/nbd-frontend.js'
import {MemoryDevice} from '../../support/memory-device.js'
import {NbdClient} from './support/nbd-client.js'
import {recordedLog} from './support/served.js'

t.test('endpoints are NBD URIs', async t => {
  t.equal(endpointOf({kind: 'unix', path: '/run/longhorn/a.sock'}, 'vol-1'), 'nbd+unix:///vol-1?socket=/run/longhorn/a.sock')
  t.equal(endpointOf({kind: 'unix', path: '/run/50% & more/a?b#c'}, 'a b/ü'), 'nbd+unix:///a%20b%2F%C3%BC?socket=/run/50%25%20%26%20more/a%3Fb%23c')
  t.equal(endpointOf({kind: 'tcp', host: '10.0.0.1', port: 10809}, 'vol'), 'nbd://10.0.0.1:10809/vol')
  t.equal(endpointOf({kind: 'tcp', host: 'fd00::1', port: 10809}, 'vol'), 'nbd://[fd00::1]:10809/vol')
  for (const host of ['', '::', '0.0.0.0']) t.equal(endpointOf({kind: 'tcp', host, port: 9}, 'vol'), 'nbd://localhost:9/vol')
})

t.test('the default socket', async t => {
  t.same(defaultAddress('pvc-1'), {kind: 'unix', path: '/var/run/longhorn/pvc-1.nbd.sock'})
  t.throws(() => defaultAddress('x'.repeat(100)), {code: 'LH_USAGE'}, 'names that are too long for one')
})

const asRoot = process.getuid?.() === 0 ? false : 'only root may write to /var/run'

t.test('without an address: a socket in /var/run/longhorn that nobody else may use', {skip: asRoot}, async t => {
  const volume = `test-${process.pid}`
  const device = new MemoryDevice(4096)
  const options = {volume, device, listen: undefined, log: recordedLog().log}
  const frontend = await nbdFrontend.open(options)
  const path = `/var/run/longhorn/${volume}.nbd.sock`
  t.equal(frontend.endpoint, `nbd+unix:///${volume}?socket=${path}`)
  t.equal(statSync(path).mode & 0o777, 0o600)
  await t.rejects(nbdFrontend.open(options), {code: 'LH_CONFLICT'})
  const client = await NbdClient.open(path, volume)
  await client.flush()
  await client.close()
  await frontend.close()
  t.throws(() => statSync(path), {code: 'ENOENT'})
})

t.test('shares of memory', async t => {
  const budget = new Budget()
  const shares = Array.from({length: 128}, () => (budget.enter(), budget.bytesPerConnection / 1024 / 1024))
  t.same([shares[0], shares[15], shares[31], shares[127]], [16, 16, 8, 2])
  for (let count = 0; count < 128; count++) budget.leave()
  t.equal(budget.bytesPerConnection, 16 * 1024 * 1024)
})
