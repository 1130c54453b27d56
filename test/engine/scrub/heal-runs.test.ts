// Replicas in whose files much is damaged at once.
import {createHash} from 'node:crypto'
import {closeSync, openSync, readFileSync, writeSync} from 'node:fs'
import t, {type Test} from 'tap'
import {isKind} from '../../../src/lib/errors.js'
import {FEATURE} from '../../../src/protocol/frame.js'
import {connect} from '../../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../../../src/protocol/proto/generated/controller.js'
import {Pattern} from '../../support/pattern.js'
import {replicaImage} from '../../support/replica-image.js'
import {read, write} from '../../support/request.js'
import {shortDir} from '../../support/short-dir.js'
import {until} from '../../support/until.js'
import {engineOptions, runEngine, runReplicas, type RunningReplica} from '../support/running.js'
import {agent, fileOf, scrub, scrubbed} from '../support/scrubbing.js'

const BLOCK = 4096
const REGION = 256
const MIB = 1024 * 1024
const pattern = new Pattern()

async function rig(t: Test, sizeBytes: number) {
  const replicas = await runReplicas(t, shortDir(t), 3, sizeBytes)
  const {engine, address} = await runEngine(t, engineOptions(replicas, {sizeBytes}))
  const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address})
  t.teardown(() => rpc.destroy())
  await fill(engine.volume, 0, sizeBytes)
  await rpc.volumeSnapshot({name: 'a'})
  return {replicas, volume: engine.volume, rpc}
}

async function fill(volume: Parameters<typeof write>[0], from: number, to: number, seed = 0): Promise<void> {
  for (let at = from; at < to; at += 16 * BLOCK) await write(volume, at, pattern.at(at + seed, Math.min(16 * BLOCK, to - at)))
}

function damage(replica: RunningReplica, snapshot: string, blocks: readonly number[]): void {
  const fd = openSync(fileOf(replica, snapshot), 'r+')
  for (const block of blocks) writeSync(fd, `damaged ${block}`, block * BLOCK + 17)
  closeSync(fd)
}

function range(from: number, to: number, step = 1): number[] {
  return Array.from({length: Math.ceil((to - from) / step)}, (_, index) => from + index * step)
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest()
}

/** The damage that both of these tests heal: long runs, one over the border of two regions and one of whole regions, single blocks, in two replicas at once. */
async function damagedAllOver(t: Test) {
  const all = await rig(t, 6 * MIB)
  const first = [...range(200, 321), ...range(3 * REGION, 5 * REGION), ...range(2 * REGION, 3 * REGION, 7)]
  damage(all.replicas[1]!, 'a', first)
  damage(all.replicas[2]!, 'a', [...range(10, 42), ...range(2 * REGION + 1, 3 * REGION, 14), 6 * REGION - 1])
  return all
}

async function healsAll(t: Test, {replicas, rpc}: Awaited<ReturnType<typeof rig>>): Promise<void> {
  const status = await scrub(rpc)
  t.match(status, {state: 'complete', progress: 100})
  t.equal(status.healed, status.found)
  const one = replicas[1]!.address
  const found = (replica: string, first: number, count: number): boolean =>
    status.findings.some(({offset, length, ...rest}) => rest.replica === replica && rest.healed && offset === BigInt(first * BLOCK) && length === BigInt(count * BLOCK))
  t.ok(found(one, 200, 56) && found(one, 256, 65), 'what lies over the border of two regions')
  t.ok(found(one, 3 * REGION, REGION) && found(one, 4 * REGION, REGION), 'whole regions')
  t.ok(range(2 * REGION, 3 * REGION, 7).every(block => found(one, block, 1)), 'single blocks')
  t.ok(found(replicas[2]!.address, 10, 32) && found(replicas[2]!.address, 6 * REGION - 1, 1))
  const right = readFileSync(fileOf(replicas[0]!, 'a'))
  t.equal(pattern.mismatch(right, 0), -1)
  for (const replica of replicas) t.ok(readFileSync(fileOf(replica, 'a')).equals(right), 'all files are the same')
  t.match(await scrub(rpc), {found: 0n})
}

t.test('long runs, over the borders of regions, and single blocks, in two replicas at once', async t => {
  await healsAll(t, await damagedAllOver(t))
})

t.test('replicas that can be given one range at a time only', async t => {
  const all = await damagedAllOver(t)
  for (const link of all.volume.replicas) Object.defineProperty(link, 'features', {value: link.features.filter(feature => feature !== FEATURE.SCRUB_RUNS)})
  await healsAll(t, all)
})

t.test('progress goes up while regions are healed, and not before', async t => {
  const {replicas, rpc} = await rig(t, 16 * MIB)
  damage(replicas[1]!, 'a', range(0, 16 * REGION, 2))
  await rpc.volumeScrub({})
  const seen: [progress: number, healed: number][] = []
  await until(async () => {
    const {state, progress, healed} = await rpc.volumeScrubStatus({})
    if (state === 'in_progress') seen.push([progress, Number(healed)])
    return state !== 'in_progress'
  }, 'it is scrubbed', 60_000)
  for (const [progress, healed] of seen) t.ok(progress <= 100 * (healed / (128 * 16)) + 0.01, `${progress} % with ${healed} healed`)
  t.same(seen.map(([progress]) => progress), seen.map(([progress]) => progress).sort((a, b) => a - b))
  t.match(await scrub(rpc), {found: 0n})
})

t.test('a heal and a purge at the same time', async t => {
  const {replicas, volume, rpc} = await rig(t, 12 * MIB)
  const agents = replicas.map(replica => agent(t, replica))
  const expected = Buffer.from(await replicaImage(replicas[0]!.directory, 'a'))
  const put = async (from: number, to: number, seed: number): Promise<void> => {
    await fill(volume, from, to, seed)
    for (let at = from; at < to; at += 16 * BLOCK) pattern.at(at + seed, 16 * BLOCK).copy(expected, at)
  }
  let removed = 'a'
  for (let round = 0; round < 4; round++) {
    const kept = `kept-${round}`
    await put(round * MIB, (round + 4) * MIB, 1000 * (round + 1))
    await rpc.volumeSnapshot({name: kept})
    for (const {rpc: control} of replicas) await control.diskMarkAsRemoved({name: `volume-snap-${removed}.img`})
    // In what is merged, in what it is merged into, and next to each other in both.
    damage(replicas[1]!, removed, range(6 * REGION, 12 * REGION, 3))
    damage(replicas[1]!, kept, range(round * REGION, (round + 2) * REGION))
    await rpc.volumeScrub({})
    if (round % 2 === 1) await until(async () => (({state, healed}) => healed > 0n || state !== 'in_progress')(await rpc.volumeScrubStatus({})), 'something is healed')
    // The one that is being healed, or all of them.
    for (const one of round < 2 ? [agents[1]!] : agents) await one.snapshotPurge({})
    await scrubbed(rpc)
    for (const one of agents) await until(async () => !(await one.snapshotPurgeStatus({})).isPurging, 'it is purged', 60_000)
    await until(async () => (await scrub(rpc)).found === 0n, 'nothing bad is left', 60_000)
    // Those that have not purged yet do now, so that each round begins alike.
    for (const one of agents) await one.snapshotPurge({}).catch((error: unknown) => t.ok(isKind(error, 'BUSY')))
    for (const one of agents) await until(async () => !(await one.snapshotPurgeStatus({})).isPurging, 'it is purged', 60_000)
    for (const {directory} of replicas) t.ok((await replicaImage(directory, kept)).equals(expected), `${kept} is what it was`)
    removed = kept
  }
  t.ok((await read(volume, 0, 16 * BLOCK)).equals(expected.subarray(0, 16 * BLOCK)))
  t.ok(volume.replicas.every(({mode}) => mode === 'RW'))
})

t.test('what a replica takes, and what it leaves as it is', async t => {
  const {replicas} = await rig(t, 2 * MIB)
  const sync = agent(t, replicas[0]!)
  const layer = 'volume-snap-a.img'
  const at = (block: number): Buffer => pattern.at(block * BLOCK, BLOCK)
  const blocks = [1, 2, 9]
  const data = Buffer.concat([100, 101, 102].map(at))
  const digests = Buffer.concat([100, 101, 102].map(number => sha256(at(number))))
  const expected = Buffer.concat(blocks.map(number => sha256(at(number))))
  const which = Buffer.alloc(REGION)
  for (const block of blocks) which[block] = 1
  const request = {layer, region: 0n, which, data, expected, digests}
  const refused = async (change: object, code: string): Promise<void> => void (await t.rejects(sync.layerHealBlocks({...request, ...change}), {code}))
  await refused({which: which.subarray(1)}, 'LH_USAGE')
  await refused({which: Buffer.alloc(REGION)}, 'LH_USAGE')
  await refused({which: Buffer.alloc(REGION, 2)}, 'LH_USAGE')
  await refused({data: data.subarray(1)}, 'LH_USAGE')
  await refused({expected: expected.subarray(32)}, 'LH_USAGE')
  await refused({digests: Buffer.alloc(0)}, 'LH_USAGE')
  await refused({region: -1n}, 'LH_USAGE')
  await refused({region: 2n ** 40n}, 'LH_USAGE')
  await refused({layer: 'volume-head-001.img'}, 'LH_USAGE')
  await refused({layer: 'volume-snap-not.img'}, 'LH_NOT_FOUND')
  await refused({digests: expected}, 'LH_CORRUPT')
  await refused({data: Buffer.concat([at(100), at(101), at(103)])}, 'LH_CORRUPT')
  await t.rejects(sync.layerBlocks({layer, region: 2n ** 40n}), {code: 'LH_USAGE'})
  const file = (): Buffer => readFileSync(fileOf(replicas[0]!, 'a'))
  t.equal(pattern.mismatch(file(), 0), -1, 'nothing was changed')
  const outdated = Buffer.concat([sha256(at(1)), sha256(at(3)), sha256(at(9))])
  t.match(await sync.layerHealBlocks({...request, expected: outdated}), {outcomes: Buffer.from([0, 1, 0]), reasons: [/has changed at 8192/]})
  t.same([1, 2, 9].map(block => file().subarray(block * BLOCK, (block + 1) * BLOCK)), [at(100), at(2), at(102)])
  t.match(await sync.layerHealBlocks(request), {outcomes: Buffer.from([1, 0, 1]), reasons: {length: 2}}, 'once more: only what was left')
  t.match(await sync.layerHealBlocks({...request, region: 100n}), {outcomes: Buffer.from([1, 1, 1])}, 'behind the end')
  await t.rejects(sync.layerHeal({layer, offset: 0n, data, expected}), {code: 'LH_CONFLICT'}, 'a range is healed as a whole or not at all')
})
