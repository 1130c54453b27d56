import {randomBytes} from 'node:crypto'
import {readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {startEngine, startReplica} from '../support/daemons.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {longhorn} from './run-program.js'

const SIZE = 8 * 1024 ** 2

t.test('an encrypted backup, from the key file to the restored image', async t => {
  const folder = shortDir(t)
  const socket = join(folder, 'vol.sock')
  const replica = await startReplica(t, join(folder, 'one'), SIZE)
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: [replica.address], socket})
  const data = randomBytes(100 * 1024)
  const peer = new FramePeer(await dial({kind: 'unix', path: socket}))
  t.teardown(() => peer.socket.destroy())
  peer.send({type: 1, offset: 4096n, size: data.length, payload: data})
  t.equal((await peer.next()).type, 2)

  const key = randomBytes(32)
  const file = join(folder, 'backup.key')
  writeFileSync(file, `${key.toString('base64')}\n`, {mode: 0o600})
  const dest = `vfs://${join(folder, 'store')}`
  const withKey = {LONGHORN_ENGINE: engine.address, LONGHORN_BACKUP_KEY_FILE: file}
  const {name: volume} = JSON.parse((await longhorn(['volume', 'info', '--json'], withKey)).stdout) as {name: string}
  const made = await longhorn(['backup', 'create', volume, '--dest', dest, '--name', 'secret-one', '--quiet'], withKey)
  t.match(made, {exitCode: 0, stderr: ''})
  const url = `${dest}?backup=secret-one&volume=${volume}`

  const {backups} = JSON.parse((await longhorn(['backup', 'ls', dest, '--json'])).stdout) as {backups: {key: string}[]}
  t.match(backups, [{backup: 'secret-one', key: /^[0-9a-f]{16}$/}], 'listed without the key')
  const [{key: id}] = backups as [{key: string}]
  const image = join(folder, 'restored.img')
  for (const command of [['restore', url, '--to-file', image], ['verify', url], ['create', volume, '--dest', dest]]) {
    const refused = await longhorn(['backup', ...command], {LONGHORN_ENGINE: engine.address})
    t.match(refused, {exitCode: 2, stderr: new RegExp(`the key ${id}`)}, command.join(' '))
  }
  t.match(await longhorn(['backup', 'verify', url], withKey), {exitCode: 0, stdout: /nothing wrong/})
  t.match(await longhorn(['backup', 'restore', url, '--to-file', image], withKey), {exitCode: 0})
  t.ok(readFileSync(image).subarray(4096, 4096 + data.length).equals(data))

  writeFileSync(file, 'too short\n')
  const wrong = await longhorn(['backup', 'ls', dest], withKey)
  t.match(wrong, {exitCode: 2, stderr: /backup\.key, line 1: a key has 32 bytes/})
  t.notMatch(wrong.stderr, /too short/)
})
