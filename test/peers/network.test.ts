// Replicas and engines on hosts of their own, whose network fails: nobody is told, as with a cable that is pulled.
import {once} from 'node:events'
import {connect as connectSocket} from 'node:net'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {parseAddress} from '../../src/lib/address.js'
import {connect} from '../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition, ReplicaMode} from '../../src/protocol/proto/generated/controller.js'
import {FRAME} from '../../src/protocol/frame.js'
import {FramePeer} from '../support/frames.js'
import {VerifiedLoad} from '../crash/support/verified-load.js'
import {seededRandom} from '../replica/support/random.js'
import {longhorn} from '../cli/run-program.js'
import {startEngine, startReplica, type Daemon} from '../support/daemons.js'
import {replicaImage, replicaSum} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {Host, withoutHosts, withoutNetem} from './support/hosts.js'

const SIZE = 16 * 1024 * 1024
/** Of replicas that are to be given up, in seconds; others answer sooner, also on a disk that other tests keep busy. */
const SHORT_S = 10
const skip = withoutHosts()

interface Running {
  readonly daemon: Daemon
  readonly address: string
}

function rpcOf(t: Test, {address}: Running) {
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: parseAddress(address), timeoutMs: 60_000})
  t.teardown(() => rpc.destroy())
  return rpc
}

t.test('a replica is cut off, comes back, and is cut off again while it is rebuilt', {skip}, async t => {
  const folder = shortDir(t)
  const directories = [join(folder, 'near'), join(folder, 'far')]
  const host = new Host(t)
  // Where the other one can fetch from it.
  const near = await startReplica(t, directories[0]!, SIZE, `${host.gateway}:10000`)
  const far = await startReplica(t, directories[1]!, SIZE, `${host.address}:10000`, host.prefix)
  const socket = join(folder, 'vol.sock')
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: [near.address, far.address], socket, more: ['--engine-replica-timeout', `${SHORT_S}`]})
  const rpc = rpcOf(t, engine)
  const modes = async (): Promise<ReplicaMode[]> => (await rpc.replicaList()).replicas.map(({mode}) => mode)
  const load = new VerifiedLoad(SIZE, seededRandom(t), false)
  load.rests = true
  await load.connect(socket)
  load.start()
  await load.progress(500)

  host.cut()
  await until(async () => (await modes())[1] === ReplicaMode.ERR, 'the replica is dropped', 60_000)
  await load.progress(500)
  t.equal(load.errors, 0, 'the initiator does not notice')
  await rpc.volumeSnapshot({name: 'meanwhile', labels: new Map(), freezeFilesystem: false})
  host.mend()
  await until(() => rpc.replicaAdd({address: far.address, bytesPerSecond: 2n * 1024n * 1024n}).then(() => true, () => false), 'it is taken in again, though its process knows of nothing', 60_000)

  host.cut()
  await until(async () => (await rpc.replicaRebuildList({})).rebuilds.some(({state}) => state === 'error'), 'the rebuild has failed', 60_000)
  await load.progress(500)
  host.mend()
  await until(() => rpc.replicaAdd({address: far.address, bytesPerSecond: 0n}).then(() => true, () => false), 'it is taken in once more', 60_000)
  await until(async () => (await modes())[1] === ReplicaMode.RW, 'it is up to date', 60_000)
  await load.progress(300)
  await load.stop()
  await load.verifyAll()
  t.equal(load.errors, 0)
  t.same(load.problems, [])
  t.same(await engine.daemon.end('SIGTERM'), [0, null])
  for (const {daemon} of [near, far]) t.same(await daemon.end('SIGTERM'), [0, null])
  t.equal(await replicaSum(directories[0]!), await replicaSum(directories[1]!))
  load.verifyImage(await replicaImage(directories[1]!), 'the replica that was cut off')
  t.same(load.problems, [])
})

t.test('an engine that is cut off and replaced can change nothing when it comes back', {skip}, async t => {
  const folder = shortDir(t)
  const host = new Host(t)
  // On this side of the cable: this host reaches them also when it is cut.
  const replicas: Running[] = []
  for (const index of [0, 1]) replicas.push(await startReplica(t, join(folder, `replica-${index}`), SIZE, `${host.gateway}:${10_000 + index * 20}`))
  const addresses = replicas.map(({address}) => address)
  const more = ['--engine-replica-timeout', '60']
  const stale = await startEngine(t, {sizeBytes: SIZE, replicas: addresses, socket: join(folder, 'stale.sock'), more, prefix: host.prefix})
  const load = new VerifiedLoad(SIZE, seededRandom(t))
  await load.connect(join(folder, 'stale.sock'))
  load.start()
  await load.progress(500)
  await load.stop()
  load.disconnect()

  host.cut()
  // What it is given from now on it cannot pass on, and does not know that yet.
  const late = await connectPeer(t, join(folder, 'stale.sock'))
  for (let sequence = 0; sequence < 32; sequence++) late.send({sequence, type: FRAME.WRITE, offset: BigInt(sequence * 100 * 4096), payload: Buffer.alloc(4096, 0xee)})
  const next = await startEngine(t, {sizeBytes: SIZE, replicas: addresses, socket: join(folder, 'next.sock')})
  const rpc = rpcOf(t, next)
  await until(async () => (await rpc.replicaList()).replicas.every(({mode}) => mode === ReplicaMode.RW), 'the replicas have been compared', 60_000)
  await load.connect(join(folder, 'next.sock'))
  await load.verifyAll()
  load.start()
  await load.progress(500)

  host.mend()
  for (let answers = 0; answers < 32; answers++) t.equal((await late.next()).type, FRAME.ERROR, 'the stale engine finds out and says so to its initiator')
  await load.progress(300)
  await load.stop()
  t.equal(load.errors, 0)
  await stale.daemon.end('SIGTERM')
  await load.verifyAll()
  t.same(load.problems, [], 'nothing of what the stale engine was given has got through')
  t.same((await rpc.replicaList()).replicas.map(({mode}) => mode), [ReplicaMode.RW, ReplicaMode.RW], 'and its end closes nothing')
  t.same(await next.daemon.end('SIGTERM'), [0, null])
  for (const {daemon} of replicas) t.same(await daemon.end('SIGTERM'), [0, null])
})

interface Pair {
  readonly host: Host
  /** A replica on this host, and one on the other. */
  readonly directories: readonly [near: string, far: string]
  readonly near: Running
  readonly far: Running
  readonly engine: Running
  readonly load: VerifiedLoad
  readonly rpc: ReturnType<typeof rpcOf>
}

async function pair(t: Test, timeoutSeconds: number): Promise<Pair> {
  const folder = shortDir(t)
  const directories = [join(folder, 'near'), join(folder, 'far')] as const
  const host = new Host(t)
  const near = await startReplica(t, directories[0], SIZE, `${host.gateway}:10000`)
  const far = await startReplica(t, directories[1], SIZE, `${host.address}:10000`, host.prefix)
  const socket = join(folder, 'vol.sock')
  const more = ['--engine-replica-timeout', `${timeoutSeconds}`]
  const engine = await startEngine(t, {sizeBytes: SIZE, replicas: [near.address, far.address], socket, more})
  const load = new VerifiedLoad(SIZE, seededRandom(t), false)
  load.rests = true
  await load.connect(socket)
  load.start()
  await load.progress(500)
  return {host, directories, near, far, engine, load, rpc: rpcOf(t, engine)}
}

function snapshot({rpc}: Pair, name: string): Promise<unknown> {
  return rpc.volumeSnapshot({name, labels: new Map(), freezeFilesystem: false})
}

async function farMode({rpc}: Pair): Promise<ReplicaMode | undefined> {
  return (await rpc.replicaList()).replicas[1]?.mode
}

async function takeIn(all: Pair): Promise<void> {
  await until(() => all.rpc.replicaAdd({address: all.far.address, bytesPerSecond: 0n}).then(() => true, () => false), 'it is taken in', 60_000)
  // Over a cable that loses all now and then, beside other tests, this takes long.
  await until(async () => (await farMode(all)) === ReplicaMode.RW, 'it is up to date', 180_000)
}

async function ends(t: Test, {load, engine, near, far, directories}: Pair, snapshots: readonly string[]): Promise<void> {
  await load.progress(300)
  await load.stop()
  await load.verifyAll()
  t.equal(load.errors, 0, 'the initiator does not notice')
  t.same(load.problems, [])
  t.same(await engine.daemon.end('SIGTERM'), [0, null])
  for (const {daemon} of [near, far]) t.same(await daemon.end('SIGTERM'), [0, null])
  for (const name of [undefined, ...snapshots]) {
    const [here, there] = await Promise.all(directories.map(directory => replicaImage(directory, name)))
    t.ok(here!.equals(there!), `both hold the same: ${name ?? 'the volume'}`)
  }
  load.verifyImage(await replicaImage(directories[1]), 'the replica behind the cable')
  t.same(load.problems, [])
}

/** Everything that is done with a volume, on a network that is bad and not dead: nobody is dropped. */
async function lives(t: Test, disturb: (host: Host) => () => void): Promise<void> {
  const all = await pair(t, 20)
  const {host, load, rpc, far} = all
  const calm = disturb(host)
  await load.progress(300, 60_000)
  await snapshot(all, 'one')
  await load.progress(100, 60_000)
  t.same(await farMode(all), ReplicaMode.RW, 'it is slow and not dropped')
  await rpc.replicaDelete({address: far.address})
  await load.progress(100, 60_000)
  await takeIn(all)
  await load.progress(100, 60_000)
  calm()
  await ends(t, all, ['one'])
}

t.test('a cable that loses everything now and then', {skip}, t => lives(t, host => host.flicker(400, 60)))

t.test('packets are delayed, reordered and lost', {skip: withoutNetem()}, t =>
  lives(t, host => {
    host.disturb('delay', '5ms', '3ms', 'loss', '1%')
    return () => host.disturb('delay', '0ms')
  }),
)

t.test('a host vanishes while a snapshot is taken, while it purges, and comes back', {skip}, async t => {
  const all = await pair(t, SHORT_S)
  const {host, load, rpc} = all
  await snapshot(all, 'one')
  const taken = snapshot(all, 'two').then(() => '', String)
  host.cut()
  await until(async () => (await farMode(all)) === ReplicaMode.ERR, 'it is dropped', 60_000)
  await load.progress(200)
  t.equal(await taken, '', 'the snapshot is taken without it')
  await snapshot(all, 'three')
  host.mend()
  await takeIn(all)

  await load.progress(200)
  await rpc.volumeSnapshot({name: 'four', labels: new Map(), freezeFilesystem: false})
  const engine = ['--engine', all.engine.address]
  for (const name of ['one', 'three']) t.match(await longhorn(['snapshot', 'rm', name, ...engine]), {exitCode: 0})
  const purged = longhorn(['snapshot', 'purge', ...engine])
  host.cut()
  await until(async () => (await farMode(all)) === ReplicaMode.ERR, 'it is dropped', 60_000)
  const {exitCode, stderr} = await purged
  t.ok(exitCode === 0 || stderr.includes(host.address), `a purge that failed says where: ${stderr}`)
  await load.progress(200)
  host.mend()
  await takeIn(all)
  t.match(await longhorn(['snapshot', 'purge', ...engine]), {exitCode: 0})
  await ends(t, all, ['four'])
})

async function connectPeer(t: Test, path: string): Promise<FramePeer> {
  const socket = connectSocket(path)
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  return new FramePeer(socket)
}
