// What upstream's engine asks of two replicas to rebuild one from the other, and to clone; with what goes wrong on the way.
import {createHash} from 'node:crypto'
import {existsSync, readdirSync, readFileSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {FRAME} from '../../../src/protocol/frame.js'
import {connect, type RpcClient} from '../../../src/protocol/grpc/client.js'
import {ReplicaServiceDefinition} from '../../../src/protocol/proto/generated/replica.js'
import type {SyncFileInfo} from '../../../src/protocol/proto/generated/common.js'
import {SyncAgentServiceDefinition} from '../../../src/protocol/proto/generated/sync-agent.js'
import {parseAddress, type TcpAddress} from '../../../src/lib/address.js'
import {openVolumeView} from '../../../src/replica/open-replica.js'
import {runReplica} from '../../engine/support/running.js'
import {startDaemon} from '../../support/daemons.js'
import {FramePeer} from '../../support/frames.js'
import {shortDir} from '../../support/short-dir.js'
import {dial} from '../../support/sockets.js'
import {until} from '../../support/until.js'
import {seededRandom, type Random} from '../support/random.js'

const MB = 1024 ** 2
const SIZE = 16 * MB
const CREATED = '2026-01-02T03:04:05Z'

interface Peer {
  readonly directory: string
  readonly address: TcpAddress
  readonly rpc: RpcClient<typeof ReplicaServiceDefinition>
  readonly agent: RpcClient<typeof SyncAgentServiceDefinition>
}

function clients(t: Test, directory: string, address: TcpAddress): Peer {
  const rpc = connect(ReplicaServiceDefinition, {peer: 'replica', address})
  const agent = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...address, port: address.port + 2}})
  t.teardown(() => rpc.destroy())
  t.teardown(() => agent.destroy())
  return {directory, address, rpc, agent}
}

async function run(t: Test, directory: string): Promise<Peer> {
  const {server} = await runReplica(t, directory, SIZE)
  return clients(t, directory, server.address)
}

async function data(t: Test, {address}: Peer): Promise<FramePeer> {
  const peer = new FramePeer(await dial({...address, port: address.port + 1}))
  t.teardown(() => peer.socket.destroy())
  return peer
}

/** A write to all of `peers`, which is an engine's. Whole blocks where `whole`, as it does while one of them is being rebuilt. */
async function write(random: Random, peers: readonly FramePeer[], whole: boolean): Promise<void> {
  const length = whole ? 4096 * (1 + random.below(20)) : 1 + random.below(20_000)
  const offset = whole ? 4096 * random.below((SIZE - length) / 4096) : random.below(SIZE - length)
  const payload = Buffer.alloc(length, 1 + random.below(255))
  for (const peer of peers) peer.send({type: FRAME.WRITE, offset: BigInt(offset), size: length, payload})
  for (const peer of peers) {
    const answer = await peer.next()
    if (answer.type !== FRAME.RESPONSE) throw new Error(`a write was answered with ${answer.payload.toString()}`)
  }
}

const snapshot = (peer: Peer, name: string): Promise<unknown> => peer.rpc.replicaSnapshot({name, userCreated: true, created: CREATED})

/** A source with three snapshots and something in its head. */
async function source(t: Test, random: Random, folder: string): Promise<{peer: Peer; wire: FramePeer}> {
  const peer = await run(t, join(folder, 'source'))
  await peer.rpc.replicaOpen({})
  const wire = await data(t, peer)
  for (const name of ['one', 'two', 'three']) {
    for (let count = 0; count < 30; count++) await write(random, [wire], false)
    await snapshot(peer, name)
  }
  for (let count = 0; count < 10; count++) await write(random, [wire], false)
  return {peer, wire}
}

async function filesOf({rpc}: Peer): Promise<SyncFileInfo[]> {
  const {replica} = await rpc.replicaGet()
  const disks = [...replica!.disks.values()].filter(({name}) => name !== replica!.head)
  return disks.flatMap(({name, size}) => [
    {fromFileName: name, toFileName: name, actualSize: BigInt(size)},
    {fromFileName: `${name}.meta`, toFileName: `${name}.meta`, actualSize: 0n},
  ])
}

const tcp = ({host, port}: TcpAddress): string => `tcp://${host}:${port}`

async function syncFiles(from: Peer, to: Peer, fastSync = false): Promise<void> {
  const request = {toHost: '127.0.0.1', syncFileInfoList: await filesOf(from), fastSync, fileSyncHttpClientTimeout: 30, fromAddressMap: new Map([[tcp(from.address), true]])}
  await to.agent.filesSync(request, {timeoutMs: 120_000})
}

async function copyHeadMeta(from: Peer, to: Peer): Promise<void> {
  const [{replica: theirs}, {replica: ours}] = await Promise.all([from.rpc.replicaGet(), to.rpc.replicaGet()])
  const {port} = await to.agent.receiverLaunch({toFileName: `${ours!.head}.meta`})
  await from.agent.fileSend({fromFileName: `${theirs!.head}.meta`, host: '127.0.0.1', port, fileSyncHttpClientTimeout: 30})
}

async function checkSame(t: Test, a: string, b: string): Promise<void> {
  const layers = readdirSync(a).filter(file => /^volume-snap-.*\.img$/.test(file))
  t.same(readdirSync(b).filter(file => /^volume-snap-.*\.img$/.test(file)), layers)
  for (const layer of [undefined, ...layers]) t.equal(await sum(a, layer), await sum(b, layer), layer ?? 'the head')
  for (const layer of layers) {
    t.ok(readFileSync(join(a, layer)).equals(readFileSync(join(b, layer))), `the file ${layer}`)
    t.ok(readFileSync(join(a, `${layer}.meta`)).equals(readFileSync(join(b, `${layer}.meta`))), `${layer}.meta`)
  }
}

async function sum(directory: string, layer: string | undefined): Promise<string> {
  await using view = await openVolumeView(directory, layer)
  const content = Buffer.alloc(view.sizeBytes)
  view.reader.readSync(content, 0, content.length, 0)
  return createHash('md5').update(content).digest('hex')
}

const state = async ({rpc}: Peer): Promise<unknown> => (await rpc.replicaGet()).replica

t.test('a rebuild, while the volume is written', async t => {
  const random = seededRandom(t)
  const folder = shortDir(t)
  const {peer: from, wire: fromWire} = await source(t, random, folder)
  const to = await run(t, join(folder, 'target'))
  // Something of an earlier life, some of it of the same name.
  await to.rpc.replicaOpen({})
  const toWire = await data(t, to)
  for (const name of ['gone', 'two']) {
    for (let count = 0; count < 10; count++) await write(random, [toWire], false)
    await snapshot(to, name)
  }
  await snapshot(from, 'system')
  await snapshot(to, 'system')
  const wires = [fromWire, toWire]
  let whole = true
  let loading = true
  let writes = 0
  const load = (async () => {
    for (; loading; writes++) await write(random, wires, whole)
  })()
  t.match(await to.rpc.rebuildingSet({rebuilding: true}), {replica: {state: 'rebuilding', rebuilding: true}})
  await to.rpc.diskRemove({name: 'volume-snap-gone.img', force: true})
  t.notOk(existsSync(join(to.directory, 'volume-snap-gone.img')))
  await to.rpc.diskRemove({name: 'volume-snap-gone.img', force: true})
  await copyHeadMeta(from, to)
  t.match(await to.agent.replicaRebuildStatus(), {isRebuilding: false, state: ''})
  await syncFiles(from, to)
  t.match(await to.agent.replicaRebuildStatus(), {isRebuilding: false, state: 'complete', progress: 100, error: '', fromReplicaAddressList: [tcp(from.address)]})
  const before = writes
  await to.rpc.replicaReload()
  whole = false
  await until(() => writes > before + 20, 'writes of parts go on')
  t.match(await to.rpc.rebuildingSet({rebuilding: false}), {replica: {state: 'dirty', rebuilding: false}})
  await until(() => writes > before + 40, 'and after that')
  loading = false
  await load
  for (let offset = 0; offset < SIZE; offset += MB) {
    for (const wire of wires) wire.send({type: FRAME.READ, offset: BigInt(offset), size: MB})
    const [a, b] = [await wires[0]!.next(), await wires[1]!.next()]
    if (!a.payload.equals(b.payload)) t.fail(`they differ at ${offset}`)
  }
  for (const peer of [from, to]) await peer.rpc.replicaClose()
  await checkSame(t, from.directory, to.directory)
})

t.test('a rebuild that is given up leaves a replica that says so, and the next one makes it whole', async t => {
  const random = seededRandom(t)
  const folder = shortDir(t)
  const {peer: from} = await source(t, random, folder)
  const to = await run(t, join(folder, 'target'))
  await t.rejects(to.rpc.rebuildingSet({rebuilding: true}), {code: 'LH_CONFLICT'}, 'closed')
  await to.rpc.replicaOpen({})
  await t.rejects(syncFiles(from, to), {code: 'LH_CONFLICT', message: /RebuildingSet/})
  await snapshot(from, 'system')
  await snapshot(to, 'system')
  await to.rpc.rebuildingSet({rebuilding: true})
  const some = (await filesOf(from)).slice(0, 2)
  const request = {toHost: '127.0.0.1', fromAddressMap: new Map([[tcp(from.address), true]])}
  for (const list of [[], [some[0]!], [...some, ...some], [{...some[0]!, toFileName: 'volume-head-001.img'}], [{...some[0]!, toFileName: '../x.img'}], [{...some[0]!, actualSize: -1n}, some[1]!]]) {
    await t.rejects(to.agent.filesSync({...request, syncFileInfoList: list}), {code: 'LH_USAGE'})
  }
  await t.rejects(to.agent.filesSync({...request, fromAddressMap: new Map(), syncFileInfoList: some}), {code: 'LH_USAGE'})
  const missing = some.map(info => ({...info, fromFileName: info.fromFileName.replace(/snap-\w+/, 'snap-missing')}))
  await t.rejects(to.agent.filesSync({...request, syncFileInfoList: missing}, {timeoutMs: 120_000}), {code: 'LH_NOT_FOUND'})
  t.match(await to.agent.replicaRebuildStatus(), {isRebuilding: false, state: 'error', error: /volume-snap-missing/})
  await to.agent.reset()
  t.match(await to.agent.replicaRebuildStatus(), {state: '', error: ''})
  // What upstream does before it tries again, and with the only replica of a volume.
  t.match(await to.rpc.rebuildingSet({rebuilding: false}), {replica: {state: 'rebuilding', rebuilding: true}})
  await to.rpc.replicaClose()
  t.match(await to.rpc.replicaOpen({}), {replica: {state: 'rebuilding'}})
  await to.rpc.replicaClose()
  t.match(await state(to), {state: 'closed', rebuilding: true})
  await to.rpc.replicaOpen({})
  await to.rpc.rebuildingSet({rebuilding: true})
  await copyHeadMeta(from, to)
  await syncFiles(from, to, true)
  await to.rpc.replicaReload()
  t.match(await to.rpc.rebuildingSet({rebuilding: false}), {replica: {rebuilding: false}})
})

t.test('killed in the middle of a transfer', async t => {
  const random = seededRandom(t)
  const folder = shortDir(t)
  const {peer: from, wire} = await source(t, random, folder)
  const directory = join(folder, 'target')
  const args = ['replica', directory, '--size', `${SIZE}`, '--listen', '127.0.0.1:0']
  for (let round = 0; round < 3; round++) {
    const {daemon, ready} = await startDaemon(t, args)
    const to = clients(t, directory, parseAddress(ready.control!) as TcpAddress)
    t.match(await state(to), {state: 'closed', rebuilding: round > 0})
    await to.rpc.replicaOpen({})
    await snapshot(from, `s${round}`)
    await snapshot(to, `s${round}`)
    await to.rpc.rebuildingSet({rebuilding: true})
    const sync = syncFiles(from, to)
    sync.catch(() => undefined)
    if (round < 2) {
      await until(() => readdirSync(directory).length > 6 + round, 'files arrive')
      await daemon.end('SIGKILL')
      // Only that it ends: it may have come through just before.
      await sync.catch(() => undefined)
      continue
    }
    await sync
    await copyHeadMeta(from, to)
    await to.rpc.replicaReload()
    t.match(await to.rpc.rebuildingSet({rebuilding: false}), {replica: {rebuilding: false}})
    await to.rpc.replicaClose()
    await daemon.end('SIGTERM')
  }
  wire.socket.destroy()
  await from.rpc.replicaRevert({name: 'volume-snap-s2.img', created: CREATED})
  await from.rpc.replicaClose()
  for (const layer of ['one', 'two', 'three', 's0', 's1', 's2'].map(name => `volume-snap-${name}.img`)) t.equal(await sum(directory, layer), await sum(from.directory, layer), layer)
})

t.test('a clone', async t => {
  const random = seededRandom(t)
  const folder = shortDir(t)
  const {peer: from} = await source(t, random, folder)
  const to = await run(t, join(folder, 'target'))
  const request = {fromAddress: tcp(from.address), toHost: '127.0.0.1', snapshotFileName: 'two', fileSyncHttpClientTimeout: 30}
  await t.rejects(to.agent.snapshotClone(request), {code: 'LH_CONFLICT'}, 'closed')
  await to.rpc.replicaOpen({})
  await t.rejects(to.agent.snapshotClone({...request, snapshotFileName: 'none'}), {code: 'LH_NOT_FOUND'})
  t.match(await to.agent.snapshotCloneStatus(), {isCloning: false, state: 'error', snapshotName: 'none'})
  await to.agent.snapshotClone(request)
  t.match(await to.agent.snapshotCloneStatus(), {isCloning: false, state: 'complete', progress: 100, fromReplicaAddress: request.fromAddress, snapshotName: 'two'})
  t.match(await state(to), {chain: [/^volume-head-/, 'volume-snap-two.img']})
  await t.rejects(to.agent.snapshotClone(request), {code: 'LH_CONFLICT'}, 'again')
  await to.rpc.replicaClose()
  t.equal(await sum(to.directory, undefined), await sum(from.directory, 'volume-snap-two.img'))
})

t.test('what a replica that is not being rebuilt does not allow', async t => {
  const random = seededRandom(t)
  const {peer} = await source(t, random, shortDir(t))
  const {agent, rpc, directory} = peer
  for (const toFileName of ['volume-snap-one.img', 'volume-snap-one.img.meta']) await t.rejects(agent.receiverLaunch({toFileName}), {code: 'LH_CONFLICT'}, toFileName)
  for (const toFileName of ['', 'volume-head-003.img', 'volume.meta', '../x', 'revision.counter']) await t.rejects(agent.receiverLaunch({toFileName}), {code: 'LH_USAGE'}, toFileName)
  for (const fromFileName of ['', 'volume-head-003.img', 'volume.meta', '/etc/passwd']) await t.rejects(agent.fileSend({fromFileName, host: '127.0.0.1', port: 1}), {code: 'LH_USAGE'}, fromFileName)
  for (const to of [{host: '', port: 1}, {host: '127.0.0.1', port: 0}, {host: '127.0.0.1', port: 70_000}, {host: 'a b', port: 1}]) await t.rejects(agent.fileSend({fromFileName: 'volume-snap-one.img', ...to}), {code: 'LH_USAGE'})
  await t.rejects(rpc.diskRemove({name: 'volume-snap-one.img', force: true}), {code: 'LH_CONFLICT'})
  await t.rejects(rpc.diskRemove({name: 'volume-head-003.img', force: true}), {code: 'LH_USAGE'})
  await t.rejects(rpc.revisionCounterSet({counter: 5n}), {code: 'LH_CONFLICT', message: /no revision counter/})

  writeFileSync(join(directory, 'volume-snap-loose.img'), 'x')
  for (const name of ['volume.meta', 'volume-head-003.img', '../source', '', 'other']) await t.rejects(agent.fileRemove({fileName: name}), {code: 'LH_USAGE'}, name)
  for (const name of ['volume-snap-one.img', 'volume-snap-one.img.meta']) {
    await t.rejects(agent.fileRemove({fileName: name}), {code: 'LH_CONFLICT'}, name)
    await t.rejects(agent.fileRename({oldFileName: name, newFileName: 'volume-snap-new.img'}), {code: 'LH_CONFLICT'}, name)
    await t.rejects(agent.fileRename({oldFileName: 'volume-snap-loose.img', newFileName: name}), {code: 'LH_CONFLICT'}, name)
  }
  await agent.fileRename({oldFileName: 'volume-snap-loose.img', newFileName: 'volume-snap-lost.img'})
  await t.rejects(agent.fileRemove({fileName: 'volume-snap-loose.img'}), {code: 'LH_NOT_FOUND'})
  await agent.fileRemove({fileName: 'volume-snap-lost.img'})

  const {port} = await agent.receiverLaunch({toFileName: 'volume-snap-new.img'})
  await t.rejects(agent.receiverLaunch({toFileName: 'volume-snap-new.img'}), {code: 'LH_BUSY'}, 'twice')
  await t.rejects(agent.snapshotPurge(), {code: 'LH_BUSY', message: /receiving volume-snap-new.img/})
  await agent.volumeExport({snapshotFileName: 'two', host: '127.0.0.1', port})
  await until(() => agent.snapshotPurge().then(() => true, () => false), 'it can be purged again')
  await rpc.replicaReload()
})
