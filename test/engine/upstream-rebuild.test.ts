import t from 'tap'
import {addReplica} from '../../src/cli/upstream/rebuild.js'
import {connect} from '../../src/protocol/grpc/client.js'
import {formatAddress} from '../../src/lib/address.js'
import {ControllerServiceDefinition, ReplicaMode} from '../../src/protocol/proto/generated/controller.js'
import {SyncAgentServiceDefinition} from '../../src/protocol/proto/generated/sync-agent.js'
import {ReplicaServiceDefinition} from '../../src/protocol/proto/generated/replica.js'
import {parseReplicaAddress} from '../../src/engine/replica-control.js'
import {write} from '../support/request.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {engineOptions, runEngine, runReplicas, SIZE_BYTES} from './support/running.js'

t.test("upstream's client leads a rebuild through its steps, and there is nothing for it to do", async t => {
  const [one, two] = await runReplicas(t, shortDir(t), 2)
  const {engine, address} = await runEngine(t, engineOptions([one!]))
  for (let offset = 0; offset < SIZE_BYTES; offset += 128 * 1024) await write(engine.volume, offset, Buffer.alloc(64 * 1024, offset >> 16))
  await engine.takeSnapshot('a', {})
  await write(engine.volume, 12_288, Buffer.alloc(8192, 7))
  const controller = connect(ControllerServiceDefinition, {peer: 'engine', address})
  t.teardown(() => controller.destroy())
  const target = {address: two!.address, instanceName: ''}
  t.match(await controller.controllerReplicaCreate({address: two!.address, snapshotRequired: true, mode: ReplicaMode.WO}), {address: {address: two!.address}})
  await two!.rpc.rebuildingSet({rebuilding: true})
  const {syncFileInfoList} = await controller.replicaPrepareRebuild(target)
  t.same(syncFileInfoList, [])
  const port = parseReplicaAddress(two!.address).port
  const agent = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {kind: 'tcp', host: '127.0.0.1', port: port + 2}})
  t.teardown(() => agent.destroy())
  await agent.filesSync({fromAddress: one!.address, fromAddressMap: new Map([[one!.address, true]]), toHost: '127.0.0.1', syncFileInfoList, fastSync: true})
  t.match(await agent.replicaRebuildStatus(), {error: ''})
  await two!.rpc.replicaReload()
  t.match(await controller.replicaVerifyRebuild(target), {mode: ReplicaMode.RW})
  await two!.rpc.rebuildingSet({rebuilding: false})
  t.match(await agent.replicaRebuildStatus(), {isRebuilding: false, state: 'complete', progress: 100})
  await write(engine.volume, 513, Buffer.alloc(1000, 9))
  t.ok((await replicaImage(two!.directory)).equals(await replicaImage(one!.directory)))
  t.same((await controller.replicaList()).replicas.map(({mode}) => mode), [ReplicaMode.RW, ReplicaMode.RW])
  await t.rejects(controller.replicaVerifyRebuild({address: 'tcp://10.0.0.1:9', instanceName: ''}), {code: 'LH_NOT_FOUND'})
  await t.rejects(controller.controllerReplicaCreate({address: 'tcp://127.0.0.1:1', snapshotRequired: false}), {code: 'LH_UNSUPPORTED'})
})

t.test('add-replica on an engine of ours, also after a rebuild that was cut short', async t => {
  const [one, two] = await runReplicas(t, shortDir(t), 2)
  const {engine, address} = await runEngine(t, engineOptions([one!]))
  for (let offset = 0; offset < SIZE_BYTES; offset += 64 * 1024) await write(engine.volume, offset, Buffer.alloc(64 * 1024, offset >> 16))
  await engine.addReplica(two!.address, 256 * 1024)
  await engine.removeReplica(two!.address)
  t.same(engine.replicas.map(({mode}) => mode), ['RW'])
  const rpc = connect(ReplicaServiceDefinition, {peer: 'replica', address: two!.server.address})
  t.teardown(() => rpc.destroy())
  t.match(await rpc.replicaGet(), {replica: {rebuilding: true}})
  const controller = connect(ControllerServiceDefinition, {peer: 'engine', address})
  t.teardown(() => controller.destroy())
  const request = {address: two!.address, instanceName: '', volumeName: undefined, sizeBytes: SIZE_BYTES, currentSizeBytes: SIZE_BYTES, fastSync: true, fileTimeoutS: 60, totalTimeoutS: 60}
  await addReplica(controller, request, new AbortController().signal)
  t.same(engine.replicas.map(({mode}) => mode), ['RW', 'RW'])
  t.ok((await replicaImage(two!.directory)).equals(await replicaImage(one!.directory)))
  t.ok(formatAddress(address).startsWith('tcp://'))
})
