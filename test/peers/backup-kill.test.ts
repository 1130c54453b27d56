// kill -9 of everything that takes part in a backup, at moments that are left to chance, with a real S3 server as the store.
import {randomBytes} from 'node:crypto'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {blocksFolder, locksFolder, oneBackupFolder} from '../../src/backup/format/store-layout.js'
import {removeBackups} from '../../src/backup/remove.js'
import type {BackupStore} from '../../src/backup/store/backup-store.js'
import {openStore} from '../../src/backup/store/open-store.js'
import {parseTargetUrl} from '../../src/backup/target-url.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {listed} from '../backup/faulty-store.js'
import {longhorn} from '../cli/run-program.js'
import {seededRandom} from '../replica/support/random.js'
import {startEngine, startReplica, type Daemon} from '../support/daemons.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {until} from '../support/until.js'
import {Minio, minioProgram} from './support/minio.js'

const MIB = 1024 ** 2
const SIZE = 64 * MIB
const BLOCKS = SIZE / (2 * MIB)
const DEST = 's3://backups@us-east-1/kill'

const program = await minioProgram()

t.test('kill -9 of the client, the store and the replica', {skip: 'missing' in program && program.missing}, async t => {
  if ('missing' in program) return
  const random = seededRandom(t)
  const folder = shortDir(t)
  const minio = await Minio.start(program.path, folder)
  t.teardown(() => minio.kill())
  const store = await openStore(parseTargetUrl(DEST), {env: minio.env})
  t.teardown(() => store.close())
  const image = Buffer.alloc(SIZE)
  const socket = join(folder, 'vol.sock')
  let env: Record<string, string> = {}
  let daemons: Daemon[] = []
  let volume = ''
  const start = async (): Promise<void> => {
    const replica = await startReplica(t, join(folder, 'replica'), SIZE)
    const engine = await startEngine(t, {sizeBytes: SIZE, replicas: [replica.address], socket})
    daemons = [replica.daemon, engine.daemon]
    env = {...minio.env, LONGHORN_ENGINE: engine.address}
    volume = (JSON.parse((await longhorn(['volume', 'info', '--json'], env)).stdout) as {name: string}).name
  }
  const rewrite = async (): Promise<void> => {
    const peer = new FramePeer(await dial({kind: 'unix', path: socket}))
    for (let offset = 0; offset < SIZE; offset += MIB) {
      const data = randomBytes(MIB)
      data.copy(image, offset)
      peer.send({type: 1, offset: BigInt(offset), size: data.length, payload: data})
      await peer.next()
    }
    peer.socket.destroy()
  }
  const create = (name: string, ...more: string[]) => longhorn(['backup', 'create', volume, '--dest', DEST, '--name', name, '--concurrency', '1', '--json', ...more], env)
  const sums = async (): Promise<Set<string>> => new Set((await listed(store, blocksFolder(volume))).map(({key}) => key))
  /** Waits until a backup that has just begun has stored so many blocks. */
  const stored = async (before: ReadonlySet<string>, count: number): Promise<void> => until(async () => (await sums()).size >= before.size + count, `${count} blocks are there`, 120_000)

  await start()
  for (const victim of ['client', 'store', 'replica', 'store'] as const) {
    await rewrite()
    const name = `${victim}-${randomBytes(3).toString('hex')}`
    const before = await sums()
    const running = create(name)
    const settled = running.then(result => result)
    const moment = 1 + random.below(BLOCKS - 8)
    await stored(before, moment)
    t.comment(`${name} after ${moment} blocks`)
    if (victim === 'client') {
      running.kill('SIGKILL')
      await settled
      await until(async () => finished(await ls(volume, env), name), 'the replica ends what it has begun', 120_000)
    } else if (victim === 'store') {
      await minio.kill()
      await minio.start()
      t.equal((await settled).exitCode, 0, 'a store that comes back costs time only')
    } else {
      await daemons[0]!.end('SIGKILL')
      t.not((await settled).exitCode, 0, 'the client is told')
      await daemons[1]!.end('SIGKILL')
      await start()
      t.notOk(finished(await ls(volume, env), name), 'it is listed as not finished')
      t.match(await create(`${name}-early`), {exitCode: 17}, 'the dead one counts for a while')
      await expireLocks(store, volume)
      const there = (await sums()).size - before.size
      const again = await create(`${name}-again`)
      if (again.exitCode !== 0) throw new Error(`${again.stdout}${again.stderr}`)
      const {newBytes} = JSON.parse(again.stdout) as {newBytes: number}
      t.ok(newBytes <= SIZE - there * 2 * MIB + MIB, `${there} blocks were there and are not stored again`)
      t.equal((await longhorn(['backup', 'rm', `${DEST}?backup=${name}&volume=${volume}`], env)).exitCode, 0, 'the failed one can be removed')
    }
    t.match(await verifyBackups(store, {volume, sample: 1, concurrency: 4}), {unfinished: [], findings: []}, `after a kill of the ${victim}`)
    const newest = victim === 'replica' ? `${name}-again` : name
    const file = join(folder, newest)
    t.equal((await longhorn(['backup', 'restore', `${DEST}?backup=${newest}&volume=${volume}`, '--to-file', file], env)).exitCode, 0)
    t.ok(image.equals(readFileSync(file)), 'restored as it was')
  }
  t.match(await removeBackups(store, {volume, backups: [], settleMs: 2000}), {blocksKept: undefined})
  const {blocks} = await verifyBackups(store, {volume, sample: 1, concurrency: 4})
  t.equal((await sums()).size, blocks, 'nothing is left that no backup has')
})

/** What two and a half minutes would do: this server does not let its times be changed. */
async function expireLocks(store: BackupStore, volume: string): Promise<void> {
  for (const folder of [locksFolder(volume), oneBackupFolder(volume)]) for (const {key} of await listed(store, folder)) await store.remove(key)
}

async function ls(volume: string, env: Record<string, string>): Promise<{backup: string; created: string}[]> {
  return (JSON.parse((await longhorn(['backup', 'ls', `${DEST}?volume=${volume}`, '--json'], env)).stdout) as {backups: {backup: string; created: string}[]}).backups
}

function finished(backups: readonly {backup: string; created: string}[], name: string): boolean {
  return backups.some(({backup, created}) => backup === name && created !== '')
}
