import {randomBytes} from 'node:crypto'
import {mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {LOCK, StoreLock} from '../../src/backup/store-lock.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {copyUpstreamStore} from '../backup/upstream-store.js'
import {startEngine, startReplica} from '../support/daemons.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {until} from '../support/until.js'
import {longhorn} from './run-program.js'

const MIB = 1024 ** 2
const SIZE = 16 * MIB
const WRITE = 1

async function json(args: readonly string[], env: Record<string, string> = {}): Promise<Record<string, unknown>> {
  const {exitCode, stdout, stderr} = await longhorn([...args, '--json'], env)
  if (exitCode !== 0) throw new Error(`${args.join(' ')}: exit code ${exitCode}: ${stdout}${stderr}`)
  return JSON.parse(stdout) as Record<string, unknown>
}

t.test('a volume under cron', async t => {
  const folder = shortDir(t)
  const socket = join(folder, 'vol.sock')
  const replicas = await Promise.all(['one', 'two'].map(name => startReplica(t, join(folder, name), SIZE)))
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: replicas.map(({address}) => address), socket})
  const env = {LONGHORN_ENGINE: engine.address}
  const root = join(folder, 'store')
  const dest = `vfs://${root}`
  const {name: volume} = await json(['volume', 'info'], env) as {name: string}
  const image = Buffer.alloc(SIZE)
  const peer = new FramePeer(await dial({kind: 'unix', path: socket}))
  t.teardown(() => peer.socket.destroy())
  const write = async (offset: number, data: Buffer): Promise<void> => {
    data.copy(image, offset)
    peer.send({type: WRITE, offset: BigInt(offset), size: data.length, payload: data})
    t.equal((await peer.next()).type, 2)
  }
  const check = async (backup: unknown): Promise<void> => {
    const file = join(folder, `${String(backup)}.img`)
    await json(['backup', 'restore', `${dest}?backup=${String(backup)}&volume=${volume}`, '--to-file', file])
    t.ok(image.equals(readFileSync(file)), `${String(backup)} is what the volume was`)
  }

  await write(4096, randomBytes(100 * 1024))
  await write(9 * MIB, randomBytes(64 * 1024))
  const create = (...more: string[]): Promise<Record<string, unknown>> => json(['backup', 'create', volume, '--dest', dest, '--quiet', ...more], env)
  const first = await create('--label', 'app=db', '--retain', '2')
  t.match(first, {incremental: false, blocks: 2, removed: []})
  await check(first.backup)
  await write(5 * MIB, randomBytes(4096))
  const second = await create('--retain', '2')
  t.match(second, {incremental: true, blocks: 1, removed: []})
  await check(second.backup)
  await write(9 * MIB, Buffer.alloc(64 * 1024))
  const third = await create('--retain', '2')
  t.match(third, {incremental: true, blocks: 1, removed: [first.backup]})
  await check(third.backup)
  t.same((await json(['backup', 'ls', dest]) as {backups: {backup: string}[]}).backups.map(({backup}) => backup).sort(), [second.backup, third.backup].sort())
  t.match(await json(['backup', 'verify', `${dest}?volume=${volume}`]), {backups: 2, findings: []})
  const {snapshots} = await json(['snapshot', 'ls'], env) as {snapshots: {name: string; removed: boolean}[]}
  t.same(snapshots.filter(({name, removed}) => name.startsWith('backup-') && !removed).map(({name}) => name), [third.snapshot], 'only the base of the next one is kept')
  await json(['snapshot', 'purge'], env)
  await write(0, randomBytes(4096))
  const fourth = await create()
  t.match(fourth, {incremental: true}, 'a purge leaves the base')
  await check(fourth.backup)

  const upstream = async (...args: string[]): Promise<Record<string, unknown>> => {
    const {exitCode, stdout, stderr} = await longhorn(['--url', engine.address, 'backup', ...args])
    t.equal(exitCode, 0, stderr)
    return JSON.parse(stdout) as Record<string, unknown>
  }
  const snapshot = String(fourth.snapshot)
  const begun = await upstream('create', snapshot, '--dest', dest, '--backup-name', 'theirs', '--label', 'a=b')
  t.match(begun, {backupID: 'theirs', isIncremental: false, replicaAddress: /127\.0\.0\.1/})
  let status: Record<string, unknown> = {}
  await until(async () => (status = await upstream('status', 'theirs', '--replica', String(begun.replicaAddress))).state === 'complete', 'the backup is complete', 60_000)
  t.match(status, {progress: 100, backupURL: `${dest}?backup=theirs&volume=${volume}`, snapshotName: snapshot})
  await check('theirs')
  t.match(await upstream('status', 'unknown'), {state: '', error: /Failed to get backup status on .*backup not found unknown/})

  await using held = await StoreLock.take(new VfsStore(root, dest), volume, LOCK.ONE_BACKUP, {settleMs: 10})
  const refused = await longhorn(['backup', 'create', volume, '--dest', dest, '--quiet'], env)
  t.equal(refused.exitCode, 17)
  t.match(refused.stderr, /is being backed up to .* already/)
  t.equal(refused.stdout, '')
  await held.close()
  const nowhere = await longhorn(['backup', 'create', volume, '--dest', dest, '--snapshot', 'nope', '--quiet'], env)
  t.equal(nowhere.exitCode, 10)
  t.match(nowhere.stderr, /snapshot disk volume-snap-nope\.img not found/)
})

t.test('without an engine', async t => {
  const store = copyUpstreamStore(t)
  const url = store.url
  const file = join(t.testdirName, 'out.img')
  t.match(await longhorn(['backup', 'ls', url]), {exitCode: 0, stdout: /ix-failed-s1 +unfinished/})
  t.match(await json(['backup', 'inspect', `${url}?backup=ix-lz4-s1&volume=ix-lz4`]), {Name: 'ix-lz4-s1', Size: '12582912', VolumeSize: '67108864', Messages: null})
  t.match(await longhorn(['backup', 'restore', `${url}?backup=ix-failed-s1&volume=ix-failed`, '--to-file', file]), {exitCode: 17, stderr: /in progress/})
  t.match(await longhorn(['backup', 'restore', `${url}?backup=nope&volume=ix-lz4`, '--to-file', file]), {exitCode: 10, stderr: /cannot find/})
  const other = join(t.testdirName, 'other')
  mkdirSync(other)
  t.match(await json(['backup', 'copy', `${url}?backup=ix-lz4-s3&volume=ix-lz4`, `vfs://${other}`]), {blocks: 7})
  t.match(await json(['backup', 'rm', `${url}?backup=ix-lz4-s3&volume=ix-lz4`]), {backups: ['ix-lz4-s3']})
  const [block] = readdirSync(other, {recursive: true, encoding: 'utf8'}).filter(name => name.endsWith('.blk'))
  writeFileSync(join(other, block!), 'damaged')
  const damaged = await longhorn(['backup', 'verify', `vfs://${other}?volume=ix-lz4`, '--quiet'])
  t.match(damaged, {exitCode: 15, stdout: /ix-lz4-s3/})
  t.match(await longhorn(['backup', 'verify', `${url}?volume=ix-lz4`, '--sample', '0']), {exitCode: 2})
})

t.test("upstream's forms", async t => {
  const {url} = copyUpstreamStore(t)
  const listed = JSON.parse((await longhorn(['backup', 'ls', '--volume', 'ix-none', url])).stdout) as object
  t.match(listed, {'ix-none': {Name: '', Size: '0', Messages: {}, Backups: {'ix-none-s1': {Messages: null}}, StorageClassname: ''}})
  t.match(JSON.parse((await longhorn(['backup', 'ls', '--volume-only', '--volume', 'none-such', url])).stdout), {'none-such': {Messages: {error: /^cannot find backupstore\/volumes\/.*volume\.cfg in backupstore$/}}})
  t.match(JSON.parse((await longhorn(['backup', 'inspect-volume', `${url}?volume=ix-16m`])).stdout), {Name: 'ix-16m', LastBackupName: 'ix-16m-s2', Messages: {}, DataEngine: 'v1'})
  const missing = await longhorn(['backup', 'head', `${url}?volume=none-such`])
  t.match(missing, {exitCode: 1, stdout: /cannot find/})
  t.equal((await longhorn(['backup', 'rm', '--volume', 'ix-16m', url])).exitCode, 0)
  t.equal((await longhorn(['backup', 'ls', '--volume-only', `vfs://${t.testdirName}/nothing`])).stdout, '{}')
})
