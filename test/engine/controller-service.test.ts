import {existsSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import type {Address} from '../../src/lib/address.js'
import {connect, type RpcClient} from '../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition, ReplicaMode} from '../../src/protocol/proto/generated/controller.js'
import type {Engine} from '../../src/engine/engine.js'
import {socketFrontend} from '../../src/engine/frontends/socket.js'
import {write} from '../support/request.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {until} from '../support/until.js'
import {engineOptions, runEngine, runReplicas, SIZE_BYTES, type RunningReplica} from './support/running.js'

interface Rig {
  readonly rpc: RpcClient<typeof ControllerServiceDefinition>
  readonly engine: Engine
  readonly replicas: RunningReplica[]
  readonly socket: Address & {kind: 'unix'}
}

async function rig(t: Test): Promise<Rig> {
  const folder = shortDir(t)
  const replicas = await runReplicas(t, folder, 2)
  const socket = {kind: 'unix', path: join(folder, 'vol.sock')} as const
  // A frontend of the test's own, as the default one listens in a folder of the system.
  const kind = {...socketFrontend, open: (options: Parameters<typeof socketFrontend.open>[0]) => socketFrontend.open({...options, listen: socket})}
  const {engine, address} = await runEngine(t, engineOptions(replicas, {frontends: [kind]}))
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address, identity: {volumeName: 'vol'}})
  t.teardown(() => rpc.destroy())
  return {rpc, engine, replicas, socket}
}

t.test('what it says of the volume', async t => {
  const {rpc, replicas} = await rig(t)
  t.match(await rpc.volumeGet(), {
    name: 'vol',
    size: BigInt(SIZE_BYTES),
    replicaCount: 2,
    endpoint: '',
    frontend: '',
    frontendState: 'down',
    isExpanding: false,
  })
  t.equal((await rpc.versionDetailGet()).version?.dataFormatVersion, 1n)
  t.match(await rpc.replicaList(), {replicas: replicas.map(({address}) => ({address: {address}, mode: ReplicaMode.RW}))})
})

t.test('a replica by its address', async t => {
  const {rpc, engine, replicas} = await rig(t)
  const [first, second] = replicas
  t.match(await rpc.replicaGet({address: first!.address}), {address: {address: first!.address}, mode: ReplicaMode.RW})
  await t.rejects(rpc.replicaGet({address: 'tcp://127.0.0.1:1'}), {code: 'LH_NOT_FOUND'})
  await t.rejects(rpc.replicaGet({address: 'x'.repeat(100_000)}), {code: 'LH_NOT_FOUND'})
  await second!.server.close()
  await write(engine.volume, 0, Buffer.alloc(512))
  await until(async () => (await rpc.replicaGet({address: second!.address})).mode === ReplicaMode.ERR, 'it is dropped')
  t.match(await rpc.replicaList(), {replicas: [{mode: ReplicaMode.RW}, {mode: ReplicaMode.ERR}]})
  t.match(engine.replicas[1], {mode: 'ERR', reason: /replica no longer exist|closed by the peer|connection/})
})

t.test('the frontend', async t => {
  const {rpc, socket} = await rig(t)
  await t.rejects(rpc.volumeFrontendStart({frontend: ''}), {code: 'LH_USAGE'})
  await t.rejects(rpc.volumeFrontendStart({frontend: 'iscsi'}), {code: 'LH_USAGE', message: /unknown frontend "iscsi": expected socket/})
  const up = {frontend: 'socket', frontendState: 'up', endpoint: socket.path}
  t.match(await rpc.volumeFrontendStart({frontend: 'socket'}), up)
  t.match(await rpc.volumeFrontendStart({frontend: 'socket'}), up, 'twice is success')
  const connection = await dial(socket)
  t.match(await rpc.volumeFrontendShutdown(), {frontend: '', frontendState: 'down', endpoint: ''})
  t.match(await rpc.volumeFrontendShutdown(), {frontendState: 'down'}, 'twice is success')
  t.notOk(existsSync(socket.path))
  await until(() => connection.destroyed || connection.readableEnded || connection.resume().readableEnded, 'the connection has ended')
  t.match(await rpc.volumeFrontendStart({frontend: 'socket'}), up, 'and up again')
})

t.test('calls that come while it stops or starts take their turn', async t => {
  const {rpc, socket} = await rig(t)
  const both = await Promise.all([rpc.volumeFrontendStart({frontend: 'socket'}), rpc.volumeFrontendStart({frontend: 'socket'})])
  t.match(both, [{frontendState: 'up'}, {frontendState: 'up'}])
  for (let round = 0; round < 10; round++) {
    const down = rpc.volumeFrontendShutdown()
    const up = rpc.volumeFrontendStart({frontend: 'socket'})
    await Promise.all([down, up])
    const {frontendState} = await rpc.volumeGet()
    t.equal(frontendState, 'up', `round ${round}`)
    t.ok(existsSync(socket.path))
  }
})

t.test('a device that does not grow with its volume', async t => {
  const folder = shortDir(t)
  const replicas = await runReplicas(t, folder, 1)
  const listen = {kind: 'unix', path: join(folder, 'vol.sock')} as const
  let able = false
  const resize = async (): Promise<void> => {
    if (!able) throw new Error('attach it again')
  }
  const kind = {...socketFrontend, open: async (options: Parameters<typeof socketFrontend.open>[0]) => Object.assign(await socketFrontend.open({...options, listen}), {resize})}
  const {address} = await runEngine(t, engineOptions(replicas, {frontends: [kind]}))
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address})
  t.teardown(() => rpc.destroy())
  await rpc.volumeFrontendStart({frontend: 'socket'})
  const deviceNotice = `${listen.path} still has its old size: attach it again`
  t.match(await rpc.volumeExpand({size: BigInt(2 * SIZE_BYTES)}), {size: BigInt(2 * SIZE_BYTES), deviceNotice}, 'the volume has grown')
  t.match(await rpc.volumeExpand({size: BigInt(2 * SIZE_BYTES)}), {deviceNotice}, 'it is still so')
  await rpc.volumeFrontendShutdown()
  t.match(await rpc.volumeFrontendStart({frontend: 'socket'}), {deviceNotice: ''}, 'made anew it has the size of the volume')
  able = true
  t.match(await rpc.volumeExpand({size: BigInt(3 * SIZE_BYTES)}), {size: BigInt(3 * SIZE_BYTES), deviceNotice: ''})
})

t.test('another volume is meant', async t => {
  const {engine, rpc} = await rig(t)
  t.ok(engine)
  const {address} = await runEngine(t, engineOptions((await runReplicas(t, shortDir(t), 1)).map(one => one.address), {volume: 'other'}))
  const wrong = connect(ControllerServiceDefinition, {peer: 'engine', address, identity: {volumeName: 'vol'}})
  t.teardown(() => wrong.destroy())
  await t.rejects(wrong.volumeGet())
  t.match(await rpc.volumeGet(), {name: 'vol'})
})
