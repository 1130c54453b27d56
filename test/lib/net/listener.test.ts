import {execFile} from 'node:child_process'
import {once} from 'node:events'
import {existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync} from 'node:fs'
import {createServer, type Server} from 'node:net'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {promisify} from 'node:util'
import t, {type Test} from 'tap'
import type {Address} from '../../../src/lib/address.js'
import {Listener} from '../../../src/lib/net/listener.js'
import {closeFd, listenUnix} from '../../../src/lib/net/socket-calls.js'
import {dial, hasIpv6, resetFd} from '../../support/sockets.js'
import {shortDir} from '../../support/short-dir.js'
import {until} from '../../support/until.js'

const LOOPBACK: Address = {kind: 'tcp', host: '127.0.0.1', port: 0}

async function listen(t: Test, address: Address): Promise<{listener: Listener; accepted: number[]}> {
  const accepted: number[] = []
  const listener = await Listener.open(address, fd => {
    accepted.push(fd)
    closeFd(fd)
  })
  t.teardown(() => listener.close())
  return {listener, accepted}
}

/** A server that is not ours. */
async function nodeServer(t: Test, at: {path: string} | {host: string; port: number}): Promise<Server> {
  const server = createServer().listen(at)
  await once(server, 'listening')
  t.teardown(() => server.close())
  return server
}

t.test('TCP', async t => {
  t.test('a free port is chosen and told', async t => {
    const {listener, accepted} = await listen(t, LOOPBACK)
    t.match(listener.address, {kind: 'tcp', host: '127.0.0.1'})
    const socket = await dial(listener.address)
    await once(socket, 'close')
    t.equal(accepted.length, 1)
  })

  t.test('IPv6, and all interfaces', async t => {
    for (const host of hasIpv6 ? ['::1', '::', '', 'localhost'] : ['', 'localhost']) {
      const {listener, accepted} = await listen(t, {kind: 'tcp', host, port: 0})
      const {port} = listener.address as {port: number}
      const everywhere = hasIpv6 ? ['::1', '127.0.0.1'] : ['127.0.0.1']
      const clients = host === '::1' || host === 'localhost' ? [host] : everywhere
      for (const client of clients) await once(await dial({kind: 'tcp', host: client, port}), 'close')
      t.equal(accepted.length, clients.length, `listening on "${host}"`)
    }
  })

  t.test('in use', async t => {
    const {listener} = await listen(t, LOOPBACK)
    await t.rejects(listen(t, listener.address), {
      code: 'LH_CONFLICT',
      message: /^cannot listen on tcp:\/\/127\.0\.0\.1:\d+: it is in use; stop the other process or choose another address$/,
    })
  })

  t.test('a port that has just been given up is taken again at once', async t => {
    const {listener} = await listen(t, LOOPBACK)
    const socket = await dial(listener.address)
    await once(socket, 'close')
    await listener.close()
    await listener.close()
    const again = await listen(t, listener.address)
    t.same(again.listener.address, listener.address)
  })

  t.test('an address of another machine, a name nobody has', async t => {
    await t.rejects(listen(t, {kind: 'tcp', host: '192.0.2.1', port: 0}), {code: 'LH_NOT_FOUND'})
    await t.rejects(listen(t, {kind: 'tcp', host: 'no-such-host.invalid', port: 0}), {code: 'LH_NOT_FOUND'})
  })

  t.test('a hundred connections at once, some of them gone before they are accepted', async t => {
    const {listener, accepted} = await listen(t, LOOPBACK)
    const {connectSocket} = await import('../../../src/lib/net/connect.js')
    await Promise.all(
      Array.from({length: 100}, async (_, index) => {
        const fd = await connectSocket(listener.address, 60_000)
        if (index % 3 === 0) resetFd(fd)
        else closeFd(fd)
      }),
    )
    await until(() => accepted.length >= 66, 'all have been accepted')
    await once(await dial(listener.address), 'close')
  })
})

t.test('unix sockets', async t => {
  t.test('the file is there while it listens', async t => {
    const path = join(shortDir(t), 'a.sock')
    const {listener, accepted} = await listen(t, {kind: 'unix', path})
    t.ok(statSync(path).isSocket())
    await once(await dial(listener.address), 'close')
    t.equal(accepted.length, 1)
    await listener.close()
    t.notOk(existsSync(path))
  })

  t.test('one that a process left behind is replaced', async t => {
    const path = join(shortDir(t), 'a.sock')
    closeFd(listenUnix(path, 1))
    t.ok(existsSync(path))
    const {listener, accepted} = await listen(t, {kind: 'unix', path})
    await once(await dial(listener.address), 'close')
    t.equal(accepted.length, 1)
  })

  t.test('one that somebody serves is refused and left alone', async t => {
    const path = join(shortDir(t), 'a.sock')
    await nodeServer(t, {path})
    await t.rejects(listen(t, {kind: 'unix', path}), {code: 'LH_CONFLICT'})
    ;(await dial({kind: 'unix', path})).destroy()
  })

  t.test('one whose server is too busy to accept is refused and left alone', async t => {
    const path = join(shortDir(t), 'a.sock')
    const fd = listenUnix(path, 0)
    t.teardown(() => closeFd(fd))
    const waiting = [await dial({kind: 'unix', path})]
    t.teardown(() => waiting.forEach(socket => socket.destroy()))
    await t.rejects(listen(t, {kind: 'unix', path}), {code: 'LH_CONFLICT'})
    t.ok(existsSync(path))
  })

  t.test('something else of that name is never removed', async t => {
    const dir = shortDir(t)
    writeFileSync(join(dir, 'data.img'), 'precious')
    mkdirSync(join(dir, 'folder'))
    mkdirSync(join(dir, 'other'))
    writeFileSync(join(dir, 'other', 'target'), 'precious too')
    symlinkSync(join(dir, 'other', 'target'), join(dir, 'link'))
    for (const name of ['data.img', 'folder', 'link']) {
      await t.rejects(listen(t, {kind: 'unix', path: join(dir, name)}), {code: 'LH_CONFLICT'}, name)
    }
    t.equal(readFileSync(join(dir, 'data.img'), 'utf8'), 'precious')
    t.equal(readFileSync(join(dir, 'link'), 'utf8'), 'precious too')
  })

  t.test('no such folder', async t => {
    await t.rejects(listen(t, {kind: 'unix', path: join(shortDir(t), 'missing', 'a.sock')}), {
      code: 'LH_NOT_FOUND',
      message: /its folder does not exist$/,
    })
  })
})

t.test('out of descriptors: it waits without spinning, then accepts', async t => {
  const program = fileURLToPath(new URL('support/few-descriptors.js', import.meta.url))
  const command = 'ulimit -n 64; exec "$0" "$@"'
  const {stdout} = await promisify(execFile)('sh', ['-c', command, process.execPath, program, join(shortDir(t), 'a.sock')])
  const {acceptedWhileFull, accepted, cpuMs} = JSON.parse(stdout) as Record<string, number>
  t.equal(acceptedWhileFull, 0)
  t.equal(accepted, 3)
  t.ok(cpuMs! < 250, `${cpuMs} ms of processor time in 500 ms`)
})
