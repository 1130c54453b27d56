import {randomBytes} from 'node:crypto'
import {readdirSync, readFileSync, utimesSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {removeBackups} from '../../src/backup/remove.js'
import {VfsStore} from '../../src/backup/store/vfs.js'
import {verifyBackups} from '../../src/backup/verify.js'
import {longhorn} from '../cli/run-program.js'
import {startEngine, startReplica} from '../support/daemons.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {until} from '../support/until.js'

const MIB = 1024 ** 2
const SIZE = 128 * MIB

t.test('kill -9 of the replica that makes a backup', async t => {
  const folder = shortDir(t)
  const root = join(folder, 'store')
  const dest = `vfs://${root}`
  const store = new VfsStore(root, dest)
  const image = Buffer.alloc(SIZE)
  const start = async () => {
    const replica = await startReplica(t, join(folder, 'replica'), SIZE)
    const socket = join(folder, 'vol.sock')
    const engine = await startEngine(t, {sizeBytes: SIZE, replicas: [replica.address], socket})
    const env = {LONGHORN_ENGINE: engine.address}
    const {name} = JSON.parse((await longhorn(['volume', 'info', '--json'], env)).stdout) as {name: string}
    return {replica, engine, socket, env, volume: name}
  }
  const blocks = (): string[] => readdirSync(root, {recursive: true, encoding: 'utf8'}).filter(name => name.endsWith('.blk'))

  const first = await start()
  const peer = new FramePeer(await dial({kind: 'unix', path: first.socket}))
  for (let offset = 0; offset < SIZE; offset += MIB) {
    const data = randomBytes(MIB)
    data.copy(image, offset)
    peer.send({type: 1, offset: BigInt(offset), size: data.length, payload: data})
    await peer.next()
  }
  peer.socket.destroy()
  const {volume} = first
  const running = longhorn(['backup', 'create', volume, '--dest', dest, '--name', 'killed', '--concurrency', '1', '--quiet'], first.env)
  await until(() => readdirSync(folder).includes('store') && blocks().length >= 3, 'some blocks are there', 60_000)
  await first.replica.daemon.end('SIGKILL')
  t.not((await running).exitCode, 0, 'the client is told')
  await first.engine.daemon.end('SIGKILL')
  const before = blocks()
  t.ok(before.length < SIZE / (2 * MIB), `${before.length} blocks were stored`)
  const {stdout} = await longhorn(['backup', 'ls', dest])
  t.match(stdout, /killed +unfinished/)

  // What the next day brings: locks that are too old, and a record that is dead.
  const old = Date.now() / 1000 - 7200
  for (const name of readdirSync(root, {recursive: true, encoding: 'utf8'})) if (/\.(lck|cfg)$/.test(name)) utimesSync(join(root, name), old, old)
  const second = await start()
  const made = JSON.parse((await longhorn(['backup', 'create', volume, '--dest', dest, '--name', 'again', '--quiet', '--json'], second.env)).stdout) as {newBytes: number}
  t.ok(made.newBytes <= SIZE - before.length * 2 * MIB + MIB, 'what was there is not stored again')
  t.match(await removeBackups(store, {volume, backups: [], settleMs: 10}), {dead: ['killed'], blocksKept: undefined})
  t.match(await verifyBackups(store, {volume, sample: 1, concurrency: 4}), {backups: 1, unfinished: [], findings: []})
  const file = join(folder, 'restored')
  t.equal((await longhorn(['backup', 'restore', `${dest}?backup=again&volume=${volume}`, '--to-file', file])).exitCode, 0)
  t.ok(image.equals(readFileSync(file)))
})
