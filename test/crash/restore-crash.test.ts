import {randomBytes} from 'node:crypto'
import {readdirSync, statSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {longhorn} from '../cli/run-program.js'
import {BackedUp} from '../engine/support/backed-up.js'
import {startDaemon, startReplica} from '../support/daemons.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'

const MIB = 1024 ** 2
const SIZE = 128 * MIB
const GENEROUS_MS = 120_000

t.test('kill -9 while a backup is restored', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  for (let offset = 0; offset < SIZE; offset += 8 * MIB) source.volume.write(offset, randomBytes(6 * MIB))
  const url = await source.backup('one')
  const names = ['a', 'b', 'c']
  const folders = names.map(name => join(folder, name))
  const replicas = await Promise.all(folders.map(directory => startReplica(t, directory, SIZE)))
  const startEngine = async (addresses: readonly string[]) => {
    const {daemon, ready} = await startDaemon(t, ['engine', 'vol', '--size', `${SIZE}`, '--listen', '127.0.0.1:0', ...addresses.flatMap(address => ['--replica', address])])
    return {daemon, env: {LONGHORN_ENGINE: ready.control!}}
  }
  const json = async (env: Record<string, string>, ...args: string[]): Promise<Record<string, unknown>> => {
    const {stdout, stderr, exitCode} = await longhorn([...args, '--json'], env)
    if (exitCode !== 0) throw new Error(`${args.join(' ')}: ${exitCode}: ${stdout}${stderr}`)
    return JSON.parse(stdout) as Record<string, unknown>
  }
  const fetching = (directory: string): boolean => readdirSync(directory).some(name => name === 'volume-delta-restore.img' && statSync(join(directory, name)).blocks > 0)

  // The engine, and with it whoever would put the backup in its place.
  const first = await startEngine(replicas.map(({address}) => address))
  await json(first.env, 'backup', 'restore', url, '--detach', '--concurrency', '1')
  await until(() => folders.every(fetching), 'all replicas fetch it', GENEROUS_MS)
  await first.daemon.end('SIGKILL')
  const second = await startEngine(replicas.map(({address}) => address))
  t.match(await json(second.env, 'backup', 'restore-status'), {usable: false, backup: url, lastRestored: ''})
  const refused = await longhorn(['frontend', 'start', 'nbd'], second.env)
  t.ok([11, 17].includes(refused.exitCode!), `no frontend starts: ${refused.stderr}`)
  await until(async () => (await json(second.env, 'replica', 'ls') as {replicas: {mode: string}[]}).replicas.every(({mode}) => mode === 'RW'), 'all replicas are in use', GENEROUS_MS)

  // A replica, at the second attempt.
  await json(second.env, 'backup', 'restore', url, '--detach', '--concurrency', '1')
  await until(() => fetching(folders[1]!), 'the replica that will be killed fetches it', GENEROUS_MS)
  await replicas[1]!.daemon.end('SIGKILL')
  await until(async () => (await json(second.env, 'backup', 'restore-status')).state !== 'in_progress', 'the restore is over', GENEROUS_MS)
  const status = await json(second.env, 'backup', 'restore-status')
  t.match(status, {state: 'complete', usable: true, lastRestored: url})
  const modes = (await json(second.env, 'replica', 'ls') as {replicas: {address: string; mode: string}[]}).replicas
  t.same(new Map(modes.map(({address, mode}) => [address, mode])), new Map(replicas.map(({address}, index) => [address, index === 1 ? 'ERR' : 'RW'])))
  for (const index of [0, 2]) t.ok((await replicaImage(folders[index]!)).equals(source.image('one')), `${names[index]} has it`)

  // Everything at once: what was reported complete is complete.
  await Promise.all([second.daemon.end('SIGKILL'), replicas[0]!.daemon.end('SIGKILL'), replicas[2]!.daemon.end('SIGKILL')])
  const again = await Promise.all(folders.map(directory => startReplica(t, directory, SIZE)))
  const third = await startEngine(again.map(({address}) => address))
  await until(async () => (await json(third.env, 'replica', 'ls') as {replicas: {mode: string}[]}).replicas.every(({mode}) => mode === 'RW'), 'the one that missed it is rebuilt', GENEROUS_MS)
  for (const directory of folders) t.ok((await replicaImage(directory)).equals(source.image('one')), `${directory} has it`)
  t.match(await json(third.env, 'backup', 'restore-status'), {usable: true, lastRestored: url})
})
