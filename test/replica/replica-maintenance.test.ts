import {readdirSync, readFileSync, unlinkSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {FRAME} from '../../src/protocol/frame.js'
import {connect} from '../../src/protocol/grpc/client.js'
import {ReplicaServiceDefinition} from '../../src/protocol/proto/generated/replica.js'
import {SyncAgentServiceDefinition} from '../../src/protocol/proto/generated/sync-agent.js'
import {DataServer} from '../../src/replica/data-server.js'
import {openVolumeView} from '../../src/replica/open-replica.js'
import {Replica} from '../../src/replica/replica.js'
import {startReplicaServer} from '../../src/replica/replica-server.js'
import {memoryLog} from '../engine/support/fake-replicas.js'
import {LOOPBACK, runReplica, SIZE_BYTES, type RunningReplica} from '../engine/support/running.js'
import {FramePeer} from '../support/frames.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'

const BLOCK = 4096
const CREATED = '2026-01-02T03:04:05Z'

interface Rig extends RunningReplica {
  /** Fills a block with a number. */
  put(block: number, value: number): Promise<void>
  snapshot(name: string): Promise<void>
  /** The numbers of the first four blocks, of the volume or of a snapshot. */
  blocks(snapshot?: string): Promise<number[]>
  layers(): Promise<string[]>
}

async function rig(t: Test): Promise<Rig> {
  const replica = await runReplica(t, join(shortDir(t), 'r'), SIZE_BYTES)
  await replica.rpc.replicaOpen({session: 'one'})
  const {rpc, directory, server} = replica
  const peer = new FramePeer(await dial({...server.address, port: server.address.port + 1}))
  t.teardown(() => peer.socket.destroy())
  return {
    ...replica,
    async put(block, value) {
      peer.send({type: FRAME.WRITE, offset: BigInt(block * BLOCK), payload: Buffer.alloc(BLOCK, value)})
      t.match(await peer.next(), {type: FRAME.RESPONSE})
    },
    async snapshot(name) {
      await rpc.replicaSnapshot({name, userCreated: true, created: CREATED})
    },
    async blocks(snapshot) {
      await using view = await openVolumeView(directory, snapshot && `volume-snap-${snapshot}.img`)
      const bytes = Buffer.alloc(4 * BLOCK)
      view.reader.readSync(bytes, 0, bytes.length, 0)
      return [0, 1, 2, 3].map(block => bytes[block * BLOCK]!)
    },
    async layers() {
      return [...(await rpc.replicaGet()).replica!.disks.keys()].map(file => file.replace(/^volume-(snap-)?|\.img$/g, '')).sort()
    },
  }
}

/** Snapshots a, b, c, each with a block of its own, all with block 0. */
async function three(t: Test): Promise<Rig> {
  const replica = await rig(t)
  for (const [index, name] of ['a', 'b', 'c'].entries()) {
    await replica.put(0, 10 + index)
    await replica.put(index + 1, 20 + index)
    await replica.snapshot(name)
  }
  await replica.put(0, 99)
  return replica
}

t.test('what can be done about a removed layer', async t => {
  const {rpc, snapshot} = await three(t)
  const actions = async (name: string) => (await rpc.diskPrepareRemove({name})).operations
  await t.rejects(actions('a'), {code: 'LH_CONFLICT', message: /not marked as removed/})
  await t.rejects(actions('volume-head-003.img'), {code: 'LH_USAGE'})
  await t.rejects(actions(''), {code: 'LH_USAGE'})
  t.same(await actions('nosuch'), [])
  for (const name of ['a', 'c']) await rpc.diskMarkAsRemoved({name})
  const [a, b, c] = ['a', 'b', 'c'].map(name => `volume-snap-${name}.img`)
  t.same(await actions('a'), [
    {action: 'coalesce', source: a, target: b},
    {action: 'replace', source: a, target: b},
  ])
  t.same(await actions('volume-snap-c.img'), [{action: 'prune', source: c, target: 'volume-head-003.img'}])
  await rpc.replicaRevert({name: 'volume-snap-b.img', created: CREATED})
  t.same(await actions('c'), [{action: 'remove', source: c, target: ''}])
  await snapshot('d')
  await rpc.diskMarkAsRemoved({name: 'b'})
  t.same(await actions('b'), [], 'two stand on it')
})

t.test('a layer that nothing stands on is removed', async t => {
  const {rpc, blocks, layers, directory} = await three(t)
  await t.rejects(rpc.diskRemove({name: 'volume-snap-c.img'}), {code: 'LH_CONFLICT', message: /another layer stands on it/})
  await t.rejects(rpc.diskRemove({name: 'volume-snap-c.img', force: true}), {code: 'LH_CONFLICT'}, 'force is for rebuilds')
  await t.rejects(rpc.diskRemove({name: 'volume-head-003.img', force: true}), {code: 'LH_USAGE'})
  await rpc.replicaRevert({name: 'volume-snap-b.img', created: CREATED})
  const before = await blocks()
  await rpc.diskRemove({name: 'volume-snap-c.img'})
  await rpc.diskRemove({name: 'volume-snap-c.img'})
  t.same(await layers(), ['a', 'b', 'head-004'])
  t.same(readdirSync(directory).filter(file => file.includes('snap-c')), [])
  t.same(await blocks(), before)
})

t.test('in a rebuild what stands on a removed layer stands on the one below', async t => {
  const {rpc, blocks, layers, directory} = await three(t)
  await rpc.replicaClose()
  const path = join(directory, 'volume.meta')
  writeFileSync(path, readFileSync(path, 'utf8').replace('"Rebuilding":false', '"Rebuilding":true'))
  t.match(await rpc.replicaOpen({session: 'one'}), {replica: {state: 'rebuilding'}})
  t.match(await rpc.diskRemove({name: 'volume-snap-b.img', force: true}), {replica: {state: 'rebuilding'}})
  t.same(await layers(), ['a', 'c', 'head-003'])
  t.same(await blocks('c'), [12, 20, 0, 22], 'what b held is lost')
  t.match(await rpc.diskRemove({name: 'volume-snap-c.img', force: true}), {replica: {parent: 'volume-snap-a.img', chain: ['volume-head-003.img', 'volume-snap-a.img']}})
  t.same(await blocks(), [99, 20, 0, 0])
})

t.test('two layers become one', async t => {
  const {rpc, blocks, layers} = await three(t)
  const replace = (target: string, source: string) => rpc.diskReplace({target: `volume-snap-${target}.img`, source: `volume-snap-${source}.img`})
  await t.rejects(replace('b', 'a'), {code: 'LH_CONFLICT', message: /not marked as removed/})
  await rpc.diskMarkAsRemoved({name: 'a'})
  await t.rejects(replace('c', 'a'), {code: 'LH_CONFLICT', message: /not all that stands on/})
  await t.rejects(replace('b', 'nosuch'), {code: 'LH_NOT_FOUND'})
  await t.rejects(rpc.diskReplace({target: 'volume-head-003.img', source: 'volume-snap-c.img'}), {code: 'LH_USAGE'})
  const before = [await blocks('b'), await blocks('c'), await blocks()]
  await replace('b', 'a')
  t.same(await layers(), ['b', 'c', 'head-003'])
  t.same([await blocks('b'), await blocks('c'), await blocks()], before)
  await rpc.replicaClose()
  await rpc.replicaOpen({session: 'two'})
  t.same([await blocks('b'), await blocks('c'), await blocks()], before, 'also when it is opened again')
})

t.test('the revision counter', async t => {
  const {rpc, directory} = await rig(t)
  await t.rejects(rpc.revisionCounterSet({counter: 5n}), {code: 'LH_CONFLICT', message: /keeps no revision counter/})
  await rpc.replicaClose()
  await t.rejects(rpc.revisionCounterSet({counter: 5n}), {code: 'LH_CONFLICT', message: /not open/})
  writeFileSync(join(directory, 'revision.counter'), Buffer.concat([Buffer.from('7')], 4096))
  t.match(await rpc.replicaOpen({session: 'one'}), {replica: {revisionCounter: 7n}})
  t.match(await rpc.revisionCounterSet({counter: 123_456n}), {replica: {revisionCounter: 123_456n}})
  await t.rejects(rpc.revisionCounterSet({counter: -1n}), {code: 'LH_USAGE'})
  t.match(readFileSync(join(directory, 'revision.counter'), 'latin1'), /^123456\0/)
})

t.test('a replica is deleted, and created anew', async t => {
  const {rpc, directory, blocks} = await three(t)
  await t.rejects(rpc.replicaDelete(), {code: 'LH_BUSY', message: /close it before/})
  await rpc.replicaClose()
  writeFileSync(join(directory, 'notes.txt'), 'not ours')
  await rpc.replicaDelete()
  await rpc.replicaDelete()
  t.same(readdirSync(directory), ['notes.txt'])
  t.match(await rpc.replicaGet(), {replica: {state: 'initial'}})
  unlinkSync(join(directory, 'notes.txt'))
  t.match(await rpc.replicaCreate({size: `${SIZE_BYTES}`}), {replica: {state: 'closed'}})
  t.same(await blocks(), [0, 0, 0, 0])
})

t.test('limits and marks that make no sense', async t => {
  const {rpc} = await rig(t)
  await t.rejects(rpc.snapshotMaxCountSet({count: -1}), {code: 'LH_USAGE'})
  await t.rejects(rpc.snapshotMaxSizeSet({size: -1n}), {code: 'LH_USAGE'})
  t.match(await rpc.snapshotMaxCountSet({count: 2}), {replica: {remainSnapshots: 2}})
  t.match(await rpc.snapshotMaxSizeSet({size: 1n << 40n}), {replica: {remainSnapshots: 2}})
  t.match(await rpc.unmapMarkDiskChainRemovedSet({enabled: true}), {replica: {unmapMarkDiskChainRemoved: true}})
})

t.test('without a sync agent', async t => {
  const {log} = memoryLog()
  const server = await startReplicaServer({directory: join(shortDir(t), 'r'), sizeBytes: SIZE_BYTES, listen: LOOPBACK, syncAgent: false, settings: {snapshotMaxCount: 3}, log})
  t.teardown(() => server.close())
  const rpc = connect(ReplicaServiceDefinition, {peer: 'replica', address: server.address})
  const agent = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...server.address, port: server.address.port + 2}})
  t.teardown(() => {
    rpc.destroy()
    agent.destroy()
  })
  await t.rejects(agent.snapshotPurgeStatus(), {code: /^LH_(UNREACHABLE|UNSUPPORTED)$/})
  t.match(await rpc.replicaOpen({session: 'one'}), {replica: {remainSnapshots: 3}})
})

t.test('nothing of this during a purge', async t => {
  const {log} = memoryLog()
  const data = await DataServer.start(LOOPBACK, log)
  t.teardown(() => data.close())
  const replica = await Replica.take(join(shortDir(t), 'r'), SIZE_BYTES, data, log)
  t.teardown(() => replica.giveBack())
  await replica.open({session: 'one', strict: false})
  const purge = replica.purge()
  // In turn right behind the beginning of the purge, before its first step.
  await t.rejects(replica.changeLayers(async () => undefined), {code: 'LH_BUSY', message: /already purging/})
  await purge
})
