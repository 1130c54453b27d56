// What a backup costs a replica in memory: a bound that does not grow with the volume.
import {randomBytes} from 'node:crypto'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {lz4} from '../../src/lib/sys/liblz4.js'
import {longhorn} from '../cli/run-program.js'
import {startEngine, startReplica, type Daemon} from '../support/daemons.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'

const MIB = 1024 ** 2
const SIZE = 2048 * MIB
const WRITTEN = 256 * MIB
/** Half of what it took when each block had memory of its own. */
const MOST_MIB = 130

t.test('a replica that backs up', {skip: lz4 === undefined && 'this machine has no liblz4'}, async t => {
  const folder = shortDir(t)
  const socket = join(folder, 'vol.sock')
  const start = async () => {
    const replica = await startReplica(t, join(folder, 'replica'), SIZE)
    return {replica: replica.daemon, engine: await startEngine(t, {sizeBytes: SIZE, replicas: [replica.address], socket})}
  }
  const first = await start()
  const peer = new FramePeer(await dial({kind: 'unix', path: socket}))
  for (let written = 0; written < WRITTEN; written += MIB) {
    const data = randomBytes(MIB)
    peer.send({type: 1, offset: BigInt(written * (SIZE / WRITTEN)), size: data.length, payload: data})
    await peer.next()
  }
  peer.socket.destroy()
  await first.engine.daemon.end('SIGTERM')
  await first.replica.end('SIGTERM')

  // Another process, as the peak is that of a process's whole life.
  const {replica, engine} = await start()
  const before = peakMiB(replica)
  const env = {LONGHORN_ENGINE: engine.address}
  const {name} = JSON.parse((await longhorn(['volume', 'info', '--json'], env)).stdout) as {name: string}
  const {exitCode, stderr} = await longhorn(['backup', 'create', name, '--dest', `vfs://${folder}/store`, '--concurrency', '64', '--quiet'], env)
  t.equal(exitCode, 0, stderr)
  const grown = peakMiB(replica) - before
  t.ok(grown < MOST_MIB, `${grown.toFixed(0)} MiB more than ${before.toFixed(0)}`)
})

function peakMiB({pid}: Daemon): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}
