import {join} from 'node:path'
import t from 'tap'
import {startEngine, startReplica} from '../support/daemons.js'
import {replicaSum} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {longhorn} from './run-program.js'

const SIZE = 4 * 1024 * 1024

t.test('replicas come and go, as a person types it', async t => {
  const folder = shortDir(t)
  const one = await startReplica(t, join(folder, 'one'), SIZE)
  const two = await startReplica(t, join(folder, 'two'), SIZE)
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: [one.address], socket: join(folder, 'vol.sock')})
  const env = {LONGHORN_ENGINE: engine.address}
  const run = async (...args: string[]): Promise<string> => {
    const {exitCode, stdout, stderr} = await longhorn(args, env)
    t.equal(exitCode, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const refuse = async (exit: number, line: RegExp, ...args: string[]): Promise<void> => {
    const {exitCode, stderr} = await longhorn(args, env)
    t.equal(exitCode, exit, args.join(' '))
    t.match(stderr, line)
  }
  t.match(await run('replica', 'rebuilds'), /^ADDRESS +KIND +STATE +PROGRESS +ERROR$/)
  await refuse(2, /Missing 1 required arg/, 'replica', 'add')
  await refuse(2, /expected tcp:\/\/host:port/, 'replica', 'add', 'unix:/x')
  await refuse(12, /127\.0\.0\.1:1: .*refused/, 'replica', 'add', 'tcp://127.0.0.1:1')
  await run('replica', 'rm', 'tcp://127.0.0.1:1')
  await refuse(2, /expected host:port/, 'replica', 'rm', 'one')
  await run('snapshot', 'create', 'a')
  t.match(JSON.parse(await run('replica', 'add', two.address, '--json')), {address: two.address, mode: 'RW'})
  t.match(JSON.parse(await run('replica', 'add', two.address, '--json')), {address: two.address, mode: 'RW'}, 'twice is success')
  t.match(await run('replica', 'ls'), new RegExp(`\\n${one.address} +RW\\n${two.address} +RW`))
  t.match(JSON.parse(await run('replica', 'rebuilds', '--json')), {rebuilds: [{kind: 'rebuild', state: 'error'}, {address: two.address, kind: 'rebuild', state: 'complete', error: ''}]})
  await two.daemon.end('SIGKILL')
  await until(async () => /ERR/.test(await run('replica', 'ls')), 'it is dropped', 60_000)
  const again = await startReplica(t, join(folder, 'two'), SIZE)
  t.match(await longhorn(['replica', 'add', again.address, '--no-wait', '--limit', '64m'], env), {exitCode: 0, stderr: /takes part in writes and is being rebuilt/})
  await until(async () => new RegExp(`${again.address} +RW`).test(await run('replica', 'ls')), 'it is up to date', 60_000)
  await run('replica', 'rm', two.address)
  await refuse(11, /belongs to another volume/, 'replica', 'add', (await otherVolume()).address)
  await run('replica', 'rm', one.address.replace('tcp://', ''))
  t.notMatch(await run('replica', 'ls'), one.address, 'also without the scheme')
  await refuse(11, /is the last one of the volume that can be used/, 'replica', 'rm', again.address)
  t.same(await engine.daemon.end('SIGTERM'), [0, null])
  t.equal(await replicaSum(join(folder, 'one')), await replicaSum(join(folder, 'two')))

  async function otherVolume(): Promise<{address: string}> {
    const replica = await startReplica(t, join(folder, 'other'), SIZE)
    const other = await startEngine(t, {sizeBytes: SIZE, replicas: [replica.address], socket: join(folder, 'other.sock')})
    await longhorn(['snapshot', 'create', 'theirs'], {LONGHORN_ENGINE: other.address})
    await other.daemon.end('SIGTERM')
    return replica
  }
})

t.test('a replica that missed something is found out by the next engine, also after everything was killed', async t => {
  const folder = shortDir(t)
  const paths = ['one', 'two'].map(name => join(folder, name))
  let replicas = await Promise.all(paths.map(path => startReplica(t, path, SIZE)))
  const socket = join(folder, 'vol.sock')
  const first = await startEngine(t, {sizeBytes: SIZE, replicas: replicas.map(({address}) => address), socket})
  const env = {LONGHORN_ENGINE: first.address}
  await longhorn(['snapshot', 'create', 'on-both'], env)
  await replicas[1]!.daemon.end('SIGKILL')
  await until(async () => /ERR/.test((await longhorn(['replica', 'ls'], env)).stdout), 'it is dropped', 60_000)
  await longhorn(['snapshot', 'create', 'only-on-one'], env)
  await first.daemon.end('SIGKILL')
  await replicas[0]!.daemon.end('SIGKILL')
  replicas = await Promise.all(paths.map(path => startReplica(t, path, SIZE)))
  const alone = await longhorn(['engine', 'vol', '--size', `${SIZE}`, '--listen', '127.0.0.1:0', '--replica', 'tcp://127.0.0.1:1', '--replica', replicas[1]!.address, '--min-replicas', '2'])
  t.equal(alone.exitCode, 61)
  const second = await startEngine(t, {sizeBytes: SIZE, replicas: [...replicas].reverse().map(({address}) => address), socket})
  const now = {LONGHORN_ENGINE: second.address}
  await until(async () => (await longhorn(['replica', 'ls'], now)).stdout.split('RW').length === 3, 'it has been rebuilt by itself', 60_000)
  t.match((await longhorn(['snapshot', 'ls'], now)).stdout, /only-on-one/)
  t.same(await second.daemon.end('SIGTERM'), [0, null])
  t.equal(await replicaSum(paths[0]!), await replicaSum(paths[1]!))
})
