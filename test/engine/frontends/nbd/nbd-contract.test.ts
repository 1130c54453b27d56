import {join} from 'node:path'
import t from 'tap'
import {nbdFrontend} from '../../../../src/engine/frontends/nbd/nbd-frontend.js'
import {frontendContract, type FrontendAdapter, type InitiatorClient} from '../frontend-contract.js'
import {NbdClient, type Target} from './support/nbd-client.js'
import {CMD, request} from './support/wire.js'

const can = {
  unaligned: true,
  flush: true,
  fua: true,
  discard: true,
  zeroes: true,
  requestBytes: 32 * 1024 * 1024,
  slowReaders: true,
  severalClients: true,
}

/** Where the endpoint says, as a client would read it. */
function targetOf(endpoint: string): Target {
  const url = new URL(endpoint)
  return url.searchParams.get('socket') ?? {host: url.hostname, port: Number(url.port)}
}

function initiator(client: NbdClient): InitiatorClient {
  return {
    read: (offset, length) => client.read(offset, length),
    write: (offset, data, fua) => client.write(offset, data, fua),
    flush: () => client.flush(),
    discard: (offset, length) => client.discard(offset, length),
    zeroes: (offset, length) => client.zeroes(offset, length),
    readWithoutTaking(count, length) {
      client.socket.pause()
      const all = Array.from({length: count}, () => request({command: CMD.READ, length}))
      client.socket.write(Buffer.concat(all))
    },
    takeAgain() {
      client.socket.removeAllListeners('data').on('data', () => undefined).resume()
    },
    kill: () => client.kill(),
    close: () => client.close(),
  }
}

function adapter(address: FrontendAdapter['address'], open: (target: Target) => Promise<NbdClient>): FrontendAdapter {
  return {kind: nbdFrontend, address, can, connect: async ({endpoint}) => initiator(await open(targetOf(endpoint)))}
}

const unix: FrontendAdapter['address'] = folder => ({kind: 'unix', path: join(folder, 'nbd.sock')})
const tcp: FrontendAdapter['address'] = () => ({kind: 'tcp', host: '127.0.0.1', port: 0})

t.test('nbd on a unix socket', async t => frontendContract(t, adapter(unix, target => NbdClient.open(target))))
t.test('nbd over TCP', async t => frontendContract(t, adapter(tcp, target => NbdClient.open(target, 'contract'))))
t.test('nbd for a client with simple replies', async t => frontendContract(t, adapter(unix, target => NbdClient.openSimple(target))))
