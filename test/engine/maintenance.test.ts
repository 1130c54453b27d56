import {join} from 'node:path'
import t, {type Test} from 'tap'
import type {EngineServer} from '../../src/engine/engine-server.js'
import {socketFrontend} from '../../src/engine/frontends/socket.js'
import {logRequestsInFlight} from '../../src/engine/journal.js'
import {connect, type RpcClient} from '../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition, ReplicaMode} from '../../src/protocol/proto/generated/controller.js'
import {read, write} from '../support/request.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {memoryLog} from './support/fake-replicas.js'
import {engineOptions, runEngine, runReplicas, SIZE_BYTES, type RunningReplica} from './support/running.js'

interface Rig {
  readonly rpc: RpcClient<typeof ControllerServiceDefinition>
  readonly server: EngineServer
  readonly replicas: RunningReplica[]
  readonly lines: Record<string, unknown>[]
}

async function rig(t: Test, {started = true, frontend}: {started?: boolean; frontend?: string} = {}): Promise<Rig> {
  const folder = shortDir(t)
  const replicas = await runReplicas(t, folder, 2)
  const {log, lines} = memoryLog()
  const frontendListen = {kind: 'unix', path: join(folder, 'vol.sock')} as const
  const server = await runEngine(t, engineOptions(started ? replicas : [], {frontend, frontendListen, log}))
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: server.address})
  t.teardown(() => rpc.destroy())
  return {rpc, server, replicas, lines}
}

async function stateOf({rpc}: RunningReplica): Promise<string | undefined> {
  return (await rpc.replicaGet()).replica?.state
}

t.test('a volume is started and shut down, again and again', async t => {
  const {rpc, server, replicas} = await rig(t, {started: false, frontend: 'socket'})
  const addresses = replicas.map(({address}) => address)
  t.match(await rpc.volumeGet(), {name: 'vol', size: 0n, replicaCount: 0, frontendState: 'down'})
  t.same((await rpc.replicaList()).replicas, [])
  t.match(await rpc.metricsGet(), {metrics: {readIOPS: 0n}})
  t.ok((await rpc.versionDetailGet()).version)
  await rpc.journalList()
  t.throws(() => server.engine, {code: 'LH_CONFLICT'})
  await t.rejects(rpc.volumeSnapshot({name: 'a'}), {code: 'LH_CONFLICT', message: /VolumeSnapshot: volume vol is not started/})
  await t.rejects(rpc.replicaGet({address: addresses[0]!}), {code: 'LH_NOT_FOUND'})
  await rpc.volumeSnapshotMaxCountSet({count: 5})
  await rpc.volumeStart({replicaAddresses: []})
  t.match(await rpc.volumeGet(), {replicaCount: 0}, 'nobody was named')
  await t.rejects(rpc.volumeStart({replicaAddresses: ['tcp://127.0.0.1:1']}), {code: 'LH_UNREACHABLE'})
  t.match(await rpc.volumeStart({replicaAddresses: addresses, size: BigInt(SIZE_BYTES)}), {replicaCount: 2, size: BigInt(SIZE_BYTES), frontendState: 'up', snapshotMaxCount: 5})
  t.match(await rpc.volumeStart({replicaAddresses: addresses.slice(1)}), {replicaCount: 2}, 'it is started already')
  await write(server.engine.volume, 0, Buffer.alloc(4096, 7))
  t.match(await rpc.volumeShutdown(), {replicaCount: 0, frontendState: 'down'})
  t.match(await rpc.volumeShutdown(), {replicaCount: 0}, 'twice is success')
  t.same(await Promise.all(replicas.map(stateOf)), ['closed', 'closed'])
  t.match(await rpc.volumeStart({replicaAddresses: addresses}), {replicaCount: 2, snapshotMaxCount: 5})
  t.same(await read(server.engine.volume, 0, 4096), Buffer.alloc(4096, 7))
  t.match(await rpc.replicaUpdate({address: {address: addresses[1]!, instanceName: ''}, mode: ReplicaMode.ERR}), {mode: ReplicaMode.ERR}, 'all else goes to the volume')
})

t.test('a start whose frontend fails leaves nothing open', async t => {
  const {rpc, replicas, server} = await rig(t, {started: false})
  const failing = {...socketFrontend, open: () => Promise.reject(new Error('no frontend today'))}
  const other = await runEngine(t, engineOptions([], {frontends: [failing], frontend: 'socket', frontendListen: {kind: 'unix', path: join(shortDir(t), 'other.sock')}}))
  const client = connect(ControllerServiceDefinition, {peer: 'engine', address: other.address})
  t.teardown(() => client.destroy())
  await t.rejects(client.volumeStart({replicaAddresses: replicas.map(({address}) => address)}), {message: /no frontend today/})
  t.match(await client.volumeGet(), {replicaCount: 0})
  t.same(await Promise.all(replicas.map(stateOf)), ['closed', 'closed'])
  await server.close()
  await t.rejects(rpc.volumeStart({replicaAddresses: [replicas[0]!.address]}))
})

t.test('a replica is taken out', async t => {
  const {rpc, server, replicas} = await rig(t, {frontend: 'socket'})
  const [one, two] = replicas as [RunningReplica, RunningReplica]
  await rpc.replicaDelete({address: 'tcp://127.0.0.1:1'})
  await t.rejects(rpc.replicaDelete({address: ''}), {code: 'LH_USAGE'})
  const writing = Array.from({length: 50}, (_, index) => write(server.engine.volume, index * 4096, Buffer.alloc(4096, index)))
  await rpc.replicaDelete({address: two.address})
  await Promise.all(writing)
  t.equal(await stateOf(two), 'closed')
  t.match(await rpc.replicaList(), {replicas: [{address: {address: one.address}, mode: ReplicaMode.RW}]})
  await t.rejects(rpc.replicaDelete({address: one.address}), {code: 'LH_CONFLICT', message: /last one of the volume that can be used/})
  await rpc.volumeFrontendShutdown()
  await rpc.replicaDelete({address: one.address})
  t.equal(await stateOf(one), 'closed')
  t.match(await rpc.volumeGet(), {replicaCount: 0})
  t.match(await rpc.volumeStart({replicaAddresses: [one.address]}), {replicaCount: 1}, 'a volume without replicas can be started')
  t.same(await read(server.engine.volume, 49 * 4096, 4096), Buffer.alloc(4096, 49))
})

t.test('a replica is set to ERR', async t => {
  const {rpc, replicas, server} = await rig(t)
  const [one, two] = replicas.map(({address}) => ({address, instanceName: ''})) as [{address: string; instanceName: string}, {address: string; instanceName: string}]
  await t.rejects(rpc.replicaUpdate({address: two, mode: ReplicaMode.RW}), {code: 'LH_UNSUPPORTED'})
  await t.rejects(rpc.replicaUpdate({address: two, mode: 77 as ReplicaMode}), {code: 'LH_USAGE'})
  await t.rejects(rpc.replicaUpdate({mode: ReplicaMode.ERR}), {code: 'LH_USAGE'})
  await t.rejects(rpc.replicaUpdate({address: {...two, address: 'tcp://127.0.0.1:1'}, mode: ReplicaMode.ERR}), {code: 'LH_NOT_FOUND'})
  t.match(await rpc.replicaUpdate({address: two, mode: ReplicaMode.ERR}), {address: two, mode: ReplicaMode.ERR})
  t.match(await rpc.replicaUpdate({address: two, mode: ReplicaMode.ERR}), {mode: ReplicaMode.ERR}, 'twice is success')
  t.match(server.engine.replicas, [{mode: 'RW'}, {mode: 'ERR', reason: 'set to ERR on request'}])
  await t.rejects(rpc.replicaUpdate({address: one, mode: ReplicaMode.ERR}), {code: 'LH_CONFLICT'}, 'the last one')
  t.match(await stateOf(replicas[1]!), /open|dirty/)
  await rpc.replicaDelete({address: two.address})
  t.equal(await stateOf(replicas[1]!), 'closed')
})

t.test('a replica that another engine has taken over is not closed', async t => {
  const {rpc, replicas, server} = await rig(t)
  const [, two] = replicas as [RunningReplica, RunningReplica]
  await two.rpc.replicaOpen({session: 'somebody else'})
  await until(() => server.engine.replicas[1]?.mode === 'ERR', 'it is lost')
  await rpc.replicaDelete({address: two.address})
  t.match(await stateOf(two), /open|dirty/)
  t.match(await rpc.replicaList(), {replicas: [{mode: ReplicaMode.RW}]})
})

t.test('what is counted', async t => {
  const {rpc, server} = await rig(t)
  const {volume} = server.engine
  const zeros = {readThroughput: 0n, writeThroughput: 0n, readLatency: 0n, writeLatency: 0n, readIOPS: 0n, writeIOPS: 0n}
  t.match(await rpc.metricsGet(), {metrics: zeros})
  let metrics = (await rpc.metricsGet()).metrics
  await until(
    async () => {
      await write(volume, 0, Buffer.alloc(8192, 1))
      await read(volume, 0, 4096)
      metrics = (await rpc.metricsGet()).metrics
      return metrics!.readIOPS > 0n && metrics!.writeIOPS > 0n && metrics!.readThroughput === metrics!.readIOPS * 4096n && metrics!.writeThroughput === metrics!.writeIOPS * 8192n
    },
    'a second with reads and writes',
    60_000,
  )
  t.ok(metrics!.readLatency > 0n && metrics!.writeLatency > 0n)
  await until(async () => (await rpc.metricsGet()).metrics!.readIOPS === 0n, 'a second without', 60_000)
})

t.test('the requests in flight, to the log', async t => {
  const {rpc, server, lines} = await rig(t)
  const {volume} = server.engine
  await rpc.journalList()
  t.match(lines.findLast(({msg}) => msg === 'journal'), {inFlight: 0, atReplicas: 0})
  await t.rejects(rpc.journalList({limit: -1n}), {code: 'LH_USAGE'})
  // Asked in the turn in which the writes begin: none of them has been answered yet.
  const {log, lines: journal} = memoryLog()
  const writes = [0, 4096].map(offset => write(volume, offset, Buffer.alloc(4096)))
  logRequestsInFlight(volume, 3, log)
  await Promise.all(writes)
  t.equal(journal.length, 4)
  t.match(journal[0], {msg: 'request in flight', op: 'WRITE', offset: 0, length: 4096, ageMs: Number, replica: /^tcp:/})
  t.match(journal.at(-1), {msg: 'journal', inFlight: 2, atReplicas: 4})
})
