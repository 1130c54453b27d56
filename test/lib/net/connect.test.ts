import {once} from 'node:events'
import {createServer, type AddressInfo} from 'node:net'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import type {TcpAddress} from '../../../src/lib/address.js'
import {connectSocket, resolveIp} from '../../../src/lib/net/connect.js'
import {reactor} from '../../../src/lib/net/reactor.js'
import {boundPort, closeFd, listenTcp, listenUnix} from '../../../src/lib/net/socket-calls.js'
import {shortDir} from '../../support/short-dir.js'
import {hasIpv6, nodeSocket, receiveAll} from '../../support/sockets.js'

async function greeter(t: Test, host: string): Promise<TcpAddress> {
  const server = createServer(socket => socket.end('hello')).listen(0, host)
  await once(server, 'listening')
  t.teardown(() => server.close())
  return {kind: 'tcp', host, port: (server.address() as AddressInfo).port}
}

/** An address whose queue of waiting connections is full: the kernel does not answer there. */
async function silentAddress(t: Test): Promise<TcpAddress> {
  const listener = listenTcp({family: 4, address: '127.0.0.1', port: 0}, 0)
  const address: TcpAddress = {kind: 'tcp', host: '127.0.0.1', port: boundPort(listener)}
  const waiting = await connectSocket(address, 60_000)
  t.teardown(() => {
    closeFd(waiting)
    closeFd(listener)
  })
  return address
}

t.test('connects', async t => {
  for (const host of hasIpv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1']) {
    const address = await greeter(t, host)
    const fd = await connectSocket(address, 60_000)
    t.equal(`${await receiveAll(nodeSocket(fd))}`, 'hello', host)
  }
  const {port} = await greeter(t, 'localhost')
  for (const host of ['localhost', '']) {
    t.equal(`${await receiveAll(nodeSocket(await connectSocket({kind: 'tcp', host, port}, 60_000)))}`, 'hello', `"${host}"`)
  }
})

t.test('does not connect', async t => {
  t.test('to a port where nobody listens', async t => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const {port} = server.address() as AddressInfo
    await new Promise(resolve => server.close(resolve))
    await t.rejects(connectSocket({kind: 'tcp', host: '127.0.0.1', port}, 60_000), {
      code: 'LH_UNREACHABLE',
      message: `tcp://127.0.0.1:${port}: connection refused`,
    })
  })

  t.test('to a name nobody has', async t => {
    await t.rejects(connectSocket({kind: 'tcp', host: 'no-such-host.invalid', port: 1}, 60_000), {code: 'LH_UNREACHABLE'})
  })

  t.test('to a socket that is not there, and to one nobody serves', async t => {
    const path = join(shortDir(t), 'a.sock')
    await t.rejects(connectSocket({kind: 'unix', path}, 60_000), {
      code: 'LH_UNREACHABLE',
      message: `unix:${path}: there is no such socket`,
    })
    closeFd(listenUnix(path, 1))
    await t.rejects(connectSocket({kind: 'unix', path}, 60_000), {code: 'LH_UNREACHABLE', message: `unix:${path}: connection refused`})
  })

  t.test('to a socket whose queue of waiting connections is full', async t => {
    const path = join(shortDir(t), 'a.sock')
    const listener = listenUnix(path, 0)
    const waiting = await connectSocket({kind: 'unix', path}, 60_000)
    await t.rejects(connectSocket({kind: 'unix', path}, 60_000), {code: 'LH_UNREACHABLE'})
    closeFd(waiting)
    closeFd(listener)
  })

  t.test('within the time, because nobody answers', async t => {
    const silent = await silentAddress(t)
    const started = performance.now()
    await t.rejects(connectSocket(silent, 200), {code: 'LH_TIMEOUT', message: /: no connection within 200 ms$/})
    t.ok(performance.now() - started >= 190)
  })

  t.test('when it is aborted', async t => {
    const silent = await silentAddress(t)
    const reason = new Error('never mind')
    await t.rejects(connectSocket(silent, 60_000, AbortSignal.abort(reason)), reason, 'before')
    const controller = new AbortController()
    const connecting = connectSocket({...silent, host: 'localhost'}, 60_000, controller.signal)
    controller.abort(reason)
    await t.rejects(connecting, reason, 'while the name is looked up')
    const later = new AbortController()
    const started = performance.now()
    setTimeout(() => later.abort(reason), 20)
    await t.rejects(connectSocket(silent, 60_000, later.signal), reason, 'while connecting')
    t.ok(performance.now() - started < 30_000)
  })
})

t.test('resolveIp()', async t => {
  t.same(await resolveIp('10.1.2.3', 5), {family: 4, address: '10.1.2.3', port: 5})
  t.same(await resolveIp('fe80::1', 5), {family: 6, address: 'fe80::1', port: 5})
  t.match(await resolveIp('localhost', 5), {address: /^(127\.0\.0\.1|::1)$/, port: 5})
})

t.test('nothing is left over', async t => {
  const {turn} = reactor
  await new Promise(resolve => setTimeout(resolve, 60))
  const later = reactor.turn
  await new Promise(resolve => setTimeout(resolve, 60))
  t.equal(reactor.turn, later, `the reactor has nothing to watch (turn ${turn}, then ${later})`)
})
