// Replicas whose files somebody has damaged under them.
import {closeSync, openSync, readFileSync, readSync, statSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {Scrub} from '../../src/engine/scrub/scrub.js'
import {judge, type BlockCopy} from '../../src/engine/scrub/verdict.js'
import {connect} from '../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../../src/protocol/proto/generated/controller.js'
import {changeTime} from '../../src/replica/hash/checksum-file.js'
import {memoryLog} from './support/fake-replicas.js'
import {Pattern} from '../support/pattern.js'
import {read, write} from '../support/request.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {engineOptions, runEngine, runReplicas, type RunningReplica} from './support/running.js'
import {agent, fileOf, scrub} from './support/scrubbing.js'

const BLOCK = 4096
const pattern = new Pattern()

t.before(() => {
  process.env.LONGHORN_CONTROL_PATH = join(t.testdir({}), 'control')
})

async function rig(t: Test, count: number) {
  const replicas = await runReplicas(t, shortDir(t), count)
  const {engine, address} = await runEngine(t, engineOptions(replicas))
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address})
  t.teardown(() => rpc.destroy())
  await write(engine.volume, 0, pattern.at(0, 16 * BLOCK))
  await rpc.volumeSnapshot({name: 'a'})
  await write(engine.volume, 8 * BLOCK, pattern.at(100, 16 * BLOCK))
  await rpc.volumeSnapshot({name: 'b'})
  return {replicas, engine, rpc, volume: engine.volume}
}

function damage(replica: RunningReplica, snapshot: string, block: number, bytes = 'damaged'): void {
  const fd = openSync(fileOf(replica, snapshot), 'r+')
  writeSync(fd, bytes, block * BLOCK + 17)
  closeSync(fd)
}

function blockOf(replica: RunningReplica, snapshot: string, block: number): Buffer {
  const fd = openSync(fileOf(replica, snapshot), 'r')
  const bytes = Buffer.alloc(BLOCK)
  readSync(fd, bytes, 0, BLOCK, block * BLOCK)
  closeSync(fd)
  return bytes
}

t.test('three replicas: the majority is right', async t => {
  const {replicas, rpc} = await rig(t, 3)
  t.match(await scrub(rpc), {state: 'complete', progress: 100, found: 0n, layers: 2n})
  damage(replicas[1]!, 'a', 2)
  damage(replicas[1]!, 'a', 3)
  damage(replicas[2]!, 'b', 9)
  const status = await scrub(rpc)
  t.match(status, {state: 'complete', found: 2n, healed: 2n})
  t.match(status.findings.find(({layer}) => layer.includes('-a.')), {layer: 'volume-snap-a.img', offset: BigInt(2 * BLOCK), length: BigInt(2 * BLOCK), replica: replicas[1]!.address, healed: true})
  t.same(blockOf(replicas[1]!, 'a', 2), pattern.at(2 * BLOCK, BLOCK))
  t.same(readFileSync(fileOf(replicas[2]!, 'b')), readFileSync(fileOf(replicas[0]!, 'b')))
  t.match(await scrub(rpc), {found: 0n})
})

t.test('two replicas: nothing is changed when nobody can tell', async t => {
  const {replicas, rpc} = await rig(t, 2)
  damage(replicas[1]!, 'a', 2)
  const damaged = blockOf(replicas[1]!, 'a', 2)
  t.match(await scrub(rpc), {state: 'complete', found: 1n, healed: 0n, findings: [{replica: '', healed: false, reason: /no majority/}]})
  t.same(blockOf(replicas[1]!, 'a', 2), damaged)
  t.same(blockOf(replicas[0]!, 'a', 2), pattern.at(2 * BLOCK, BLOCK))
})

t.test('two replicas: the one whose checksum still holds is right', async t => {
  const {replicas, rpc} = await rig(t, 2)
  for (const replica of replicas) {
    const sync = agent(t, replica)
    await until(async () => sync.snapshotHash({snapshotName: 'a'}).then(() => true, () => false), 'the lock is free')
    await until(async () => (await sync.snapshotHashStatus({snapshotName: 'a'})).state === 'complete', 'it is hashed')
  }
  damage(replicas[0]!, 'a', 2)
  // As if the disk had done it: the record is valid, and the data is not what it says.
  const path = `${fileOf(replicas[0]!, 'a')}.checksum`
  const record = JSON.parse(readFileSync(path, 'utf8')) as object
  const fd = openSync(path, 'w')
  writeSync(fd, JSON.stringify({...record, change_time: changeTime(statSync(fileOf(replicas[0]!, 'a'), {bigint: true}).ctimeNs)}))
  closeSync(fd)
  t.match(await scrub(rpc), {state: 'complete', found: 1n, healed: 1n, findings: [{replica: replicas[0]!.address}]})
  t.same(blockOf(replicas[0]!, 'a', 2), pattern.at(2 * BLOCK, BLOCK))
})

t.test('what nobody can see does not count', async t => {
  const {replicas, engine, rpc} = await rig(t, 3)
  for (const {rpc: control} of replicas) await control.diskMarkAsRemoved({name: 'volume-snap-a.img'})
  // b hides it, and a is removed.
  damage(replicas[1]!, 'a', 9)
  t.match(await scrub(rpc), {state: 'complete', found: 0n})
  // Read through b.
  damage(replicas[1]!, 'a', 3)
  t.match(await scrub(rpc), {state: 'complete', found: 1n, healed: 1n, findings: [{offset: BigInt(3 * BLOCK)}]})
  // One has purged and the others not yet: its b holds what theirs has from a.
  await agent(t, replicas[0]!).snapshotPurge({})
  await until(async () => (await agent(t, replicas[0]!).snapshotPurgeStatus({})).state === 'complete', 'it is purged')
  t.match(await scrub(rpc), {state: 'complete', found: 0n})
  t.same(await read(engine.volume, 0, BLOCK), pattern.at(0, BLOCK))
})

t.test('while the volume is written to, and snapshots are taken', async t => {
  const {replicas, rpc, volume} = await rig(t, 3)
  let going = true
  const load = (async () => {
    for (let count = 0; going; count++) await write(volume, (32 + (count % 64)) * BLOCK, pattern.at(count, BLOCK))
  })()
  for (let round = 0; round < 4; round++) {
    damage(replicas[round % 3]!, round % 2 === 0 ? 'a' : 'b', 8 + round)
    await rpc.volumeSnapshot({name: `more-${round}`})
    t.match(await scrub(rpc), {state: 'complete', found: 1n, healed: 1n})
  }
  going = false
  await load
  await rpc.volumeSnapshot({name: 'end'})
  t.match(await scrub(rpc), {state: 'complete', found: 0n, layers: 7n})
  t.ok(volume.replicas.every(({mode}) => mode === 'RW'))
})

t.test('a range that a read found to be bad is healed in the snapshots', async t => {
  const {replicas, engine, rpc, volume} = await rig(t, 3)
  damage(replicas[1]!, 'a', 2)
  volume.repairs.onFrozen(volume.replicas[1]!, 2 * BLOCK, BLOCK)
  await until(() => blockOf(replicas[1]!, 'a', 2).equals(pattern.at(2 * BLOCK, BLOCK)), 'it is healed')
  // What healed it reads it once more, and would find the next damage.
  t.match(await scrub(rpc), {found: 0n})
  damage(replicas[1]!, 'a', 2)
  for (let count = 0; count < 1000; count++) engine.scrub.wanted(volume.replicas[1]!, 2 * BLOCK, BLOCK)
  t.match(await scrub(rpc), {found: 1n, healed: 1n}, 'what is read again and again is not tried each time')
})

t.test('cancelled, and then again', async t => {
  const {replicas, rpc} = await rig(t, 3)
  damage(replicas[1]!, 'a', 2)
  const both = await Promise.allSettled([rpc.volumeScrub({}), rpc.volumeScrub({})])
  t.match(both, [{status: 'fulfilled'}, {status: 'rejected', reason: {code: 'LH_BUSY'}}])
  await rpc.volumeScrubCancel({})
  await until(async () => (await rpc.volumeScrubStatus({})).state !== 'in_progress', 'it has ended')
  t.match(await scrub(rpc), {state: 'complete'})
  t.same(blockOf(replicas[1]!, 'a', 2), pattern.at(2 * BLOCK, BLOCK))
})

t.test('what is refused', async t => {
  const {replicas, engine, rpc} = await rig(t, 2)
  const sync = agent(t, replicas[0]!)
  const layer = 'volume-snap-a.img'
  const digest = Buffer.alloc(32)
  await t.rejects(sync.layerDigests({layer: '', first: 0n, count: 1}), {code: 'LH_USAGE'})
  await t.rejects(sync.layerDigests({layer: '../../x/y', first: 0n, count: 1}), {code: 'LH_USAGE'})
  await t.rejects(sync.layerDigests({layer: 'volume-snap-nope.img', first: 0n, count: 1}), {code: 'LH_NOT_FOUND'})
  await t.rejects(sync.layerDigests({layer: 'volume-head-002.img', first: 0n, count: 1}), {code: 'LH_USAGE'})
  await t.rejects(sync.layerDigests({layer, first: -1n, count: 1}), {code: 'LH_USAGE'})
  for (const count of [0, -1, 1025]) await t.rejects(sync.layerDigests({layer, first: 0n, count}), {code: 'LH_USAGE'})
  t.same((await sync.layerDigests({layer, first: 1_000_000n, count: 1})).states, Buffer.from([0]), 'behind the end')
  for (const [offset, length] of [[1n, 4096], [0n, 4097], [0n, 0], [1_044_480n, 8192], [0n, 2_000_000]] as const) {
    await t.rejects(sync.layerRead({layer, offset, length}), {code: 'LH_USAGE'}, `${offset} ${length}`)
  }
  const data = pattern.at(5, BLOCK)
  await t.rejects(sync.layerHeal({layer, offset: 0n, data, expected: digest.subarray(1)}), {code: 'LH_USAGE'})
  await t.rejects(sync.layerHeal({layer, offset: 0n, data, expected: digest}), {code: 'LH_CONFLICT'}, 'it is something else')
  await t.rejects(sync.layerHeal({layer, offset: BigInt(100 * BLOCK), data, expected: digest}), {code: 'LH_CONFLICT'}, 'it holds nothing there')
  await t.rejects(sync.layerHeal({layer: 'volume-head-002.img', offset: 0n, data, expected: digest}), {code: 'LH_USAGE'})
  t.same(blockOf(replicas[0]!, 'a', 0), pattern.at(0, BLOCK))
  engine.volume.fail(engine.volume.replicas[1]!, new Error('gone'))
  await t.rejects(rpc.volumeScrub({}), {code: 'LH_UNSUPPORTED', message: /it takes two/})
  t.match(await rpc.volumeScrubStatus({}), {state: ''})
})

t.test('who is right', async t => {
  const copies = (...digests: (string | undefined)[]): BlockCopy[] => digests.map((digest, replica) => ({replica, digest, held: true, visible: true}))
  t.match(judge(copies('x', 'x')), {kind: 'same'})
  t.match(judge(copies('x', undefined)), {kind: 'wrong', good: 0, bad: [{replica: 1}]})
  t.match(judge(copies(undefined, undefined)), {kind: 'unknown'})
  t.match(judge(copies('x', 'y', 'y')), {kind: 'wrong', good: 1, bad: [{replica: 0}]})
  t.match(judge(copies('x', 'y', 'z')), {kind: 'unknown'})
  t.match(judge(copies('x', 'y', undefined)), {kind: 'unknown'})
  t.match(judge(copies('x', 'x', 'y', 'y')), {kind: 'unknown'})
  t.match(judge(copies('x', 'y'), new Set([1])), {kind: 'wrong', good: 1, bad: [{replica: 0}]})
  t.match(judge(copies('x', 'y'), new Set([0, 1])), {kind: 'unknown'}, 'both have proof of something else')
  t.match(judge(copies('x', 'y').map(copy => ({...copy, held: copy.replica === 0})), new Set([1])), {kind: 'unknown'}, 'the checksum is of another file')
  t.match(judge(copies('x', 'y').map(copy => ({...copy, visible: copy.replica === 0}))), {kind: 'same'})
})

t.test('a snapshot that is purged meanwhile is passed over; one that is said to be there and is not ends it', async t => {
  const {volume} = await rig(t, 2)
  const all = ['volume-snap-a.img', 'volume-snap-gone.img', 'volume-snap-b.img']
  let asked = 0
  let goneAfter = 2
  const layersOf = (): Promise<string[]> => Promise.resolve(asked++ < goneAfter ? all : all.filter(file => !file.includes('gone')))
  const scrub = new Scrub({volume, layersOf, log: memoryLog().log})
  const ended = async (): Promise<void> => {
    await scrub.start()
    await until(() => scrub.status.state !== 'in_progress', 'it has ended')
  }
  await ended()
  t.match(scrub.status, {state: 'complete', found: 0, layers: 2})
  goneAfter = Infinity
  await ended()
  t.match(scrub.status, {state: 'error', error: /no layer "volume-snap-gone/})
  await scrub.close()
})
