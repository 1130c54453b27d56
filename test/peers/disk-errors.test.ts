// A replica on a disk that returns errors, under a load that knows what it has been promised. The other replicas are on a good one.
import {rmSync} from 'node:fs'
import {connect} from 'node:net'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {isKind} from '../../src/lib/errors.js'
import {FRAME} from '../../src/protocol/frame.js'
import {ReplicaMode, type VolumeScrubStatusResponse} from '../../src/protocol/proto/generated/controller.js'
import {endsAlike, SIZE_BYTES, System, type Replica} from '../crash/support/system.js'
import {VerifiedLoad} from '../crash/support/verified-load.js'
import {seededRandom, type Random} from '../replica/support/random.js'
import {FramePeer} from '../support/frames.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {FailingDisk, withoutFailingDisks} from './support/failing-disk.js'

const skip = await withoutFailingDisks()
const MIB = 1024 * 1024
const BLOCK = 4096

interface Rig {
  readonly disk: FailingDisk
  readonly system: System
  readonly load: VerifiedLoad
  readonly random: Random
  /** The one on that disk; the engine reads from it first. */
  readonly bad: Replica
  readonly others: readonly Replica[]
}

async function rig(t: Test, kind: 'ext4' | 'xfs', replicas = 2): Promise<Rig> {
  const random = seededRandom(t)
  const disk = await FailingDisk.make(t, shortDir(t), kind)
  const system = await System.start(t, replicas, [], [join(disk.path, 'replica')])
  const [bad, ...others] = system.replicas
  const load = new VerifiedLoad(SIZE_BYTES, random)
  await load.connect(system.socket)
  load.start()
  await load.progress(700)
  return {disk, system, load, random, bad: bad!, others}
}

async function modeOf(system: System, {address}: Replica): Promise<ReplicaMode | undefined> {
  const {replicas} = await system.ask(rpc => rpc.replicaList())
  return replicas.find(one => one.address?.address === address)?.mode
}

/** Waits until it is dropped, for this reason. */
async function dropped(t: Test, {system, bad}: Rig, reason: RegExp): Promise<void> {
  await until(async () => (await modeOf(system, bad)) === ReplicaMode.ERR, 'the replica is dropped', 60_000)
  const said = system.engine!.stderr.find(line => line.includes('replica dropped') || line.includes('out of use')) ?? system.engine!.lastLines
  t.match(said, reason, 'with the reason')
}

async function snapshot(system: System, name: string): Promise<void> {
  await system.ask(rpc => rpc.volumeSnapshot({name, labels: new Map(), freezeFilesystem: false}, {timeoutMs: 60_000}))
}

function isBusy(error: unknown): false {
  if (isKind(error, 'BUSY')) return false
  throw error
}

async function scrub(system: System): Promise<VolumeScrubStatusResponse> {
  const begun = (): Promise<boolean> => system.ask(rpc => rpc.volumeScrub({})).then(() => true, isBusy)
  await until(begun, 'it can be scrubbed: no replica is purging', 60_000)
  const status = (): Promise<VolumeScrubStatusResponse> => system.ask(rpc => rpc.volumeScrubStatus({}))
  await until(async () => (await status()).state !== 'in_progress', 'it is scrubbed', 60_000)
  return status()
}

/** The disk is repaired and the replica started again. */
async function comesBack({disk, system, bad}: Rig): Promise<void> {
  bad.daemon.signal('SIGTERM')
  await bad.daemon.end('SIGTERM')
  await disk.mend()
  await system.restart(bad)
}

async function rebuilt({system, bad}: Rig): Promise<void> {
  await system.ask(rpc => rpc.replicaAdd({address: bad.address, bytesPerSecond: 0n}, {timeoutMs: 60_000}))
  await system.resynced()
}

async function ends(t: Test, {system, load}: Rig, snapshots: readonly string[] = []): Promise<void> {
  await load.progress(300)
  await endsAlike(t, system, load)
  t.equal(load.errors, 0, 'the initiator does not notice')
  for (const name of snapshots) {
    const [first, ...more] = await Promise.all(system.replicas.map(({directory}) => replicaImage(directory, name)))
    for (const image of more) t.ok(image.equals(first!), `the snapshot ${name} is the same`)
  }
}

/** Reads at random, with enough requests in flight that every replica gets some. */
async function readAtOnce(t: Test, peer: FramePeer, random: Random, from: number, to: number): Promise<void> {
  const size = 16 * BLOCK
  const count = (to - from) / size
  for (let sequence = 0; sequence < count; sequence++) peer.send({sequence, type: FRAME.READ, offset: BigInt(from + random.below(count) * size), size})
  for (let answers = 0; answers < count; answers++) if ((await peer.next(60_000)).type !== FRAME.RESPONSE) t.fail('a read failed')
}

for (const kind of ['ext4', 'xfs'] as const) {
  t.test(`${kind}: nothing can be written any more`, {skip}, async t => {
    const all = await rig(t, kind)
    const {disk, load} = all
    await disk.fail({writes: true})
    await dropped(t, all, /input\/output error|read-only|EROFS|EIO/i)
    await load.progress(500)
    await comesBack(all)
    await rebuilt(all)
    await ends(t, all)
  })

  t.test(`${kind}: nothing can be read any more`, {skip}, async t => {
    const all = await rig(t, kind)
    const {disk, load, bad} = all
    disk.forget(bad.directory)
    await disk.fail({reads: true})
    await dropped(t, all, /input\/output error/i)
    await load.progress(500)
    await comesBack(all)
    await rebuilt(all)
    await ends(t, all)
  })
}

t.test('bad sectors, in the head and in a snapshot: they are rewritten, and the replica stays', {skip}, async t => {
  const all = await rig(t, 'ext4', 3)
  const {disk, system, load, random, bad} = all
  await snapshot(system, 'below')
  await load.progress(1500)
  await load.stop()
  const head = join(bad.directory, 'volume-head-001.img')
  const frozen = join(bad.directory, 'volume-snap-below.img')
  await disk.damage(head, 4 * MIB, 64 * BLOCK)
  await disk.damage(frozen, 8 * MIB, 64 * BLOCK)
  const reader = new FramePeer(connect(system.socket))
  t.teardown(() => reader.socket.destroy())
  await until(async () => {
    await readAtOnce(t, reader, random, 4 * MIB, 12 * MIB)
    return system.engine!.said('what could not be read was repaired') && system.engine!.said('a snapshot differed and was healed')
  }, 'both are made good', 60_000)
  await scrub(system)
  await until(async () => {
    await readAtOnce(t, reader, random, 4 * MIB, 12 * MIB)
    return (await disk.fail({})) === 0
  }, 'nothing bad is left', 60_000)
  t.equal(await modeOf(system, bad), ReplicaMode.RW)
  load.start()
  await ends(t, all, ['below'])
})

t.test('writes fail during a snapshot: it says so, the others go on, and it works again afterwards', {skip}, async t => {
  const all = await rig(t, 'ext4')
  const {disk, system, load, bad} = all
  await snapshot(system, 'one')
  await load.progress(300)
  await snapshot(system, 'two')
  await disk.fail({writes: true})
  const outcome = await snapshot(system, 'three').then(() => 'taken', (error: unknown) => String(error))
  t.match(outcome, /taken|input\/output error|i\/o error|read-only/i, 'it is refused with the reason, or taken by the others')
  await dropped(t, all, /error|read-only/i)
  await until(() => snapshot(system, 'four').then(() => true, () => false), 'a snapshot of what is left can be taken', 30_000)
  await load.progress(300)
  t.equal(load.errors, 0)
  await comesBack(all)
  await rebuilt(all)
  t.equal(await modeOf(system, bad), ReplicaMode.RW)
  await snapshot(system, 'five')
  await ends(t, all, ['one', 'two', 'four', 'five'])
})

t.test('the target of a rebuild has a bad disk, and then a good one', {skip}, async t => {
  const all = await rig(t, 'xfs')
  const {disk, system, load, bad} = all
  await snapshot(system, 'one')
  bad.daemon.signal('SIGKILL')
  await load.progress(500)
  await bad.daemon.exited
  await system.restart(bad)
  await system.ask(rpc => rpc.replicaAdd({address: bad.address, bytesPerSecond: 2n * 1024n * 1024n}, {timeoutMs: 60_000}))
  await disk.fail({writes: true})
  const info = async () => (await system.ask(rpc => rpc.replicaRebuildList({}))).rebuilds.find(({address}) => address === bad.address)
  await until(async () => (await info())?.state === 'error', 'the rebuild has failed', 60_000)
  t.match((await info())?.error, /input\/output error|i\/o error|read-only/i)
  await load.progress(300)
  t.equal(load.errors, 0, 'the initiator does not notice')
  await comesBack(all)
  await rebuilt(all)
  await ends(t, all, ['one'])
})

t.test('the source of a rebuild cannot be read: it goes on with another one', {skip}, async t => {
  const all = await rig(t, 'ext4', 3)
  const {disk, system, load, bad, others: [, target]} = all
  await snapshot(system, 'one')
  await load.progress(300)
  await snapshot(system, 'two')
  target!.daemon.signal('SIGKILL')
  await load.progress(300)
  await load.stop()
  await target!.daemon.exited
  // All of it has to be copied, also what nobody reads.
  rmSync(target!.directory, {recursive: true})
  await system.restart(target!)
  disk.forget(bad.directory)
  const frozen = join(bad.directory, 'volume-snap-one.img')
  // Two regions next to each other each time: sources take turns by the number of the region, and either may be asked for the even ones.
  for (const at of [4, 8, 16, 24]) await disk.damage(frozen, at * MIB, 2 * MIB)
  await system.ask(rpc => rpc.replicaAdd({address: target!.address, bytesPerSecond: 0n}, {timeoutMs: 60_000}))
  await until(async () => (await modeOf(system, target!)) === ReplicaMode.RW, 'it is rebuilt', 60_000)
  t.ok(system.engine!.said('goes on with another source'))
  await until(async () => (await scrub(system)).found === 0n, 'nothing bad is left', 60_000)
  load.start()
  await ends(t, all, ['one', 'two'])
})
