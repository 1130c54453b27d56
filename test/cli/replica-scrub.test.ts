import {closeSync, openSync, writeSync} from 'node:fs'
import {connect} from 'node:net'
import {join} from 'node:path'
import t from 'tap'
import {startEngine, startReplica} from '../support/daemons.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {longhorn} from './run-program.js'

const SIZE = 4 * 1024 * 1024

function damage(directory: string): void {
  const fd = openSync(join(directory, 'volume-snap-a.img'), 'r+')
  writeSync(fd, 'damaged', 100)
  closeSync(fd)
}

t.test('scrub, as a person types it, also after a replica was killed', async t => {
  const folder = shortDir(t)
  const names = ['one', 'two', 'three']
  const replicas = await Promise.all(names.map(name => startReplica(t, join(folder, name), SIZE)))
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: replicas.map(({address}) => address), socket: join(folder, 'vol.sock')})
  const env = {LONGHORN_ENGINE: engine.address}
  const peer = new FramePeer(connect(join(folder, 'vol.sock')))
  t.teardown(() => peer.socket.destroy())
  peer.send({sequence: 1, type: 1, size: 8192, payload: Buffer.alloc(8192, 7)})
  t.match(await peer.next(), {sequence: 1, type: 2})
  t.match(await longhorn(['snapshot', 'create', 'a'], env), {exitCode: 0})
  t.match(await longhorn(['replica', 'scrub'], env), {exitCode: 0, stdout: /1 snapshots compared, nothing differs/})
  damage(join(folder, 'two'))
  t.match(await longhorn(['replica', 'scrub', 'vol'], env), {
    exitCode: 0,
    stdout: /^SNAPSHOT +OFFSET +LENGTH +REPLICA +HEALED +REASON\na +0 +4096 +tcp:\S+ +yes +-\n1 snapshots compared, 1 ranges differed, 1 of them healed$/,
  })
  t.match(await longhorn(['replica', 'scrub', 'other'], env), {exitCode: /^(?!0$)/, stderr: /other/})
  await replicas[2]!.daemon.end('SIGKILL')
  damage(join(folder, 'one'))
  const {exitCode, stdout} = await longhorn(['replica', 'scrub', '--json'], env)
  t.equal(exitCode, 1, 'found and not healed')
  t.match(JSON.parse(stdout), {snapshots: 1, found: 1, healed: 0, findings: [{snapshot: 'a', offset: 0, length: 4096, replica: '', healed: false, reason: /no majority/}]})
  await replicas[1]!.daemon.end('SIGKILL')
  t.match(await longhorn(['replica', 'scrub'], env), {exitCode: /^(18|19)$/, stderr: /Error: /})
})
