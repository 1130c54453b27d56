import {randomBytes} from 'node:crypto'
import {join} from 'node:path'
import t from 'tap'
import {BackedUp} from '../engine/support/backed-up.js'
import {startDaemon, startReplica} from '../support/daemons.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {longhorn} from './run-program.js'

const MIB = 1024 ** 2
const SIZE = 16 * MIB

t.test('into a volume', async t => {
  const folder = shortDir(t)
  const source = new BackedUp(join(folder, 'store'), SIZE)
  source.volume.write(0, randomBytes(5 * MIB))
  const first = await source.backup('first')
  const folders = ['a', 'b'].map(name => join(folder, name))
  const replicas = await Promise.all(folders.map(directory => startReplica(t, directory, SIZE)))
  const {ready} = await startDaemon(t, ['engine', 'vol', '--size', `${SIZE}`, '--listen', '127.0.0.1:0', '--frontend-listen', `unix:${join(folder, 'vol.sock')}`, ...replicas.flatMap(({address}) => ['--replica', address])])
  const env = {LONGHORN_ENGINE: ready.control!}
  const check = async (backup: string): Promise<void> => {
    for (const directory of folders) t.ok((await replicaImage(directory)).equals(source.image(backup)), `${directory} is ${backup}`)
  }

  t.match(await longhorn(['backup', 'restore-status'], env), {exitCode: 0, stdout: /restore +none\nholds +no backup\nusable +yes/})
  t.match(await longhorn(['backup', 'restore', first, '--volume', 'other'], env), {exitCode: 11, stderr: /incorrect volume name/})
  t.match(await longhorn(['backup', 'restore', source.store.url], env), {exitCode: 2, stderr: /which backup/})
  t.match(await longhorn(['backup', 'restore', first, '--to-file', 'x', '--replace'], env), {exitCode: 2})
  t.match(await longhorn(['backup', 'restore', source.url('none'), '--quiet'], env), {exitCode: 10, stderr: /cannot find/})
  const done = await longhorn(['backup', 'restore', first, '--volume', 'vol', '--quiet', '--json'], env)
  t.equal(done.exitCode, 0, done.stdout + done.stderr)
  t.match(JSON.parse(done.stdout), {state: 'complete', incremental: false, lastRestored: first, usable: true, replicas: [{state: 'complete', progress: 100, blocks: 3}, {state: 'complete', blocks: 3}]})
  await check('first')

  source.volume.write(4 * MIB, randomBytes(4096))
  const second = await source.backup('second')
  const detached = await longhorn(['backup', 'restore', second, '--detach'], env)
  t.match(detached, {exitCode: 0, stdout: /the restore of second has begun/})
  await until(async () => / complete /.test((await longhorn(['backup', 'restore-status'], env)).stdout), 'it is complete', 60_000)
  await check('second')
  t.match(await longhorn(['backup', 'restore', second], env), {exitCode: 0, stdout: /second incremental, 0 blocks, on 2 replicas/}, 'the same again')
  const shown = await longhorn(['backup', 'restore-status'], env)
  t.match(shown.stdout, /holds +vfs:.*backup=second/)

  t.equal((await longhorn(['frontend', 'start', 'socket'], env)).exitCode, 0)
  t.match(await longhorn(['backup', 'restore', first], env), {exitCode: 11, stderr: /frontend socket is up; shut it down/})
  const upstream = async (...args: string[]) => longhorn(['--url', ready.control!, 'backup', ...args])
  t.match(await upstream('restore', first), {exitCode: 1, stdout: /volume frontend enabled, cannot perform restore/})
  t.equal((await longhorn(['frontend', 'shutdown'], env)).exitCode, 0)

  const statuses = async () => Object.values(JSON.parse((await upstream('restore-status')).stdout) as Record<string, {isRestoring: boolean}>)
  // It purges after each restore, and upstream's clients do not wait for that.
  await until(async () => (await upstream('restore', first, '--concurrent-limit', '2')).exitCode === 0, 'it does not purge any more', 60_000)
  await until(async () => (await statuses()).every(({isRestoring}) => !isRestoring), 'it is over', 60_000)
  t.match(await statuses(), [{state: 'complete', progress: 100, lastRestored: 'first', backupURL: first}, {state: 'complete', lastRestored: 'first'}])
  await check('first')
  await until(async () => /already restored backup first/.test((await upstream('restore', first)).stdout), 'that is told', 60_000)
  t.equal((await longhorn(['backup', 'restore-cancel'], env)).exitCode, 0)
  t.match(JSON.parse((await longhorn(['backup', 'restore-status', '--json'], env)).stdout), {state: '', usable: true, lastRestored: first})
})
