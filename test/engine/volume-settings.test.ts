import t, {type Test} from 'tap'
import type {Engine} from '../../src/engine/engine.js'
import {connect, type RpcClient} from '../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../../src/protocol/proto/generated/controller.js'
import {OP} from '../../src/protocol/block-device.js'
import {submit, write} from '../support/request.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {engineOptions, runEngine, runReplicas, type RunningReplica} from './support/running.js'
import type {EngineServerOptions} from '../../src/engine/engine-server.js'

interface Rig {
  readonly rpc: RpcClient<typeof ControllerServiceDefinition>
  readonly engine: Engine
  readonly replicas: RunningReplica[]
}

async function rig(t: Test, more: Partial<EngineServerOptions> = {}): Promise<Rig> {
  const replicas = await runReplicas(t, shortDir(t), 2)
  const {engine, address} = await runEngine(t, engineOptions(replicas, more))
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address})
  t.teardown(() => rpc.destroy())
  return {rpc, engine, replicas}
}

t.test('how many snapshots there may be', async t => {
  const {rpc, engine, replicas} = await rig(t)
  t.match(await rpc.volumeGet(), {snapshotMaxCount: 0, snapshotMaxSize: 0n})
  for (const name of ['a', 'b', 'c']) await rpc.volumeSnapshot({name})
  await t.rejects(rpc.volumeSnapshotMaxCountSet({count: 2}), {code: 'LH_CONFLICT', message: /has 3 snapshots, more than 2/})
  await t.rejects(rpc.volumeSnapshotMaxCountSet({count: -1}), {code: 'LH_USAGE'})
  t.match(await rpc.volumeGet(), {snapshotMaxCount: 0}, 'nothing has changed')
  t.match(await rpc.volumeSnapshotMaxCountSet({count: 3}), {snapshotMaxCount: 3})
  await t.rejects(rpc.volumeSnapshot({name: 'd'}), {code: 'LH_CONFLICT', message: /has 3 snapshots and may have 3/})
  for (const {rpc: replica} of replicas) {
    t.equal((await replica.replicaGet()).replica?.remainSnapshots, 0)
    await t.rejects(replica.replicaSnapshotPrepare({name: 'd', userCreated: true, created: '2026-01-02T03:04:05Z'}), {code: 'LH_CONFLICT'}, 'the replica knows it as well')
  }
  await engine.takeSnapshot('system', {}, {userCreated: false})
  await rpc.volumeExpand({size: BigInt(engine.volume.sizeBytes * 2)})
  t.equal(engine.volume.replicas.filter(({mode}) => mode === 'RW').length, 2, 'what the system takes is never refused')
  for (const name of ['a', 'b', 'c']) for (const {rpc: replica} of replicas) await replica.diskMarkAsRemoved({name})
  t.match(await rpc.volumeSnapshot({name: 'd'}), {name: 'd'}, 'removed ones do not count')
  t.match(await rpc.volumeSnapshotMaxCountSet({count: 0}), {snapshotMaxCount: 0})
  t.match(await rpc.volumeSnapshot({name: 'e'}), {name: 'e'})
})

t.test('what snapshots may take', async t => {
  const {rpc, engine} = await rig(t)
  await write(engine.volume, 0, Buffer.alloc(65536, 1))
  await rpc.volumeSnapshot({name: 'a'})
  await t.rejects(rpc.volumeSnapshotMaxSizeSet({size: 4096n}), {code: 'LH_CONFLICT', message: /more than 4096/})
  t.match(await rpc.volumeSnapshotMaxSizeSet({size: 1n << 17n}), {snapshotMaxSize: 1n << 17n})
  await write(engine.volume, 0, Buffer.alloc(32768, 2))
  await rpc.volumeSnapshot({name: 'b'})
  await write(engine.volume, 0, Buffer.alloc(65536, 3))
  await t.rejects(rpc.volumeSnapshot({name: 'c'}), {code: 'LH_CONFLICT', message: /would have snapshots of \d+ bytes and may have 131072/})
  await rpc.volumeSnapshotMaxSizeSet({size: 0n})
  await rpc.volumeSnapshot({name: 'c'})
})

t.test('what an engine is started with goes to its replicas', async t => {
  const settings = {unmapMarkSnapChainRemoved: true, snapshotMaxCount: 7, snapshotMaxSizeBytes: 1 << 30, rebuildSyncLimit: 4}
  const {rpc, replicas} = await rig(t, {settings})
  t.match(await rpc.volumeGet(), {unmapMarkSnapChainRemoved: true, snapshotMaxCount: 7, snapshotMaxSize: 1n << 30n})
  for (const {rpc: replica} of replicas) {
    t.match(await replica.replicaGet(), {replica: {unmapMarkDiskChainRemoved: true, remainSnapshots: 7}})
  }
  t.equal((await rpc.replicaRebuildConcurrentSyncLimitGet()).limit, 4)
  await rpc.replicaRebuildConcurrentSyncLimitSet({limit: 2})
  t.equal((await rpc.replicaRebuildConcurrentSyncLimitGet()).limit, 2)
  await t.rejects(rpc.replicaRebuildConcurrentSyncLimitSet({limit: 0}), {code: 'LH_USAGE'})
})

t.test('an unmap marks snapshots where that is wanted', async t => {
  const {rpc, engine, replicas} = await rig(t)
  const marked = async (): Promise<string[][]> =>
    Promise.all(
      replicas.map(async ({rpc: replica}) => {
        const {disks} = (await replica.replicaGet()).replica!
        return [...disks.values()].filter(({removed}) => removed).map(({name}) => name).sort()
      }),
    )
  for (const name of ['shared', 'branch']) await rpc.volumeSnapshot({name})
  await rpc.volumeRevert({name: 'shared'})
  for (const name of ['a', 'b']) await rpc.volumeSnapshot({name})
  await submit(engine.volume, OP.DISCARD, 0, 8192).answered
  t.same(await marked(), [[], []], 'not unless it is asked for')
  await rpc.volumeUnmapMarkSnapChainRemovedSet({enabled: true})
  await submit(engine.volume, OP.WRITE_ZEROES, 0, 8192, {noUnmap: true}).answered
  t.same(await marked(), [[], []], 'not by zeros that keep their space')
  await submit(engine.volume, OP.DISCARD, 0, 8192).answered
  const both = ['volume-snap-a.img', 'volume-snap-b.img']
  await until(async () => JSON.stringify(await marked()) === JSON.stringify([both, both]), 'the snapshots of the volume alone are marked', 60_000)
  await rpc.volumeUnmapMarkSnapChainRemovedSet({enabled: false})
  await rpc.volumeSnapshot({name: 'c'})
  await submit(engine.volume, OP.DISCARD, 0, 8192).answered
  t.same(await marked(), [both, both], 'and no longer')
})

t.test('a replica that does not take it', async t => {
  const {rpc, engine, replicas} = await rig(t)
  await replicas[1]!.server.close()
  await rpc.volumeUnmapMarkSnapChainRemovedSet({enabled: true})
  t.match(engine.replicas, [{mode: 'RW'}, {mode: 'ERR'}], 'is dropped')
  await replicas[0]!.server.close()
  await until(() => engine.volume.members.length === 0, 'the other one is lost as well')
  await rpc.volumeUnmapMarkSnapChainRemovedSet({enabled: false})
})
