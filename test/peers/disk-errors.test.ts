// A replica on a disk that returns errors, under a load that knows what it has been promised. The other replicas are on a good one.
import {closeSync, openSync, rmSync} from 'node:fs'
import {connect} from 'node:net'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {scannerFor} from '../../src/lib/sys/file-extents.js'
import {FRAME} from '../../src/protocol/frame.js'
import {ReplicaMode} from '../../src/protocol/proto/generated/controller.js'
import {without, type Range} from '../../src/replica/purge/copy-data.js'
import {blocksIn} from '../../src/replica/rebuild/region-digest.js'
import type {Random} from '../replica/support/random.js'
import {FramePeer} from '../support/frames.js'
import {until} from '../support/until.js'
import {comesBack, dropped, ends, modeOf, rebuilt, rig, scrub, snapshot} from './support/disk-error-rig.js'
import {withoutFailingDisks} from './support/failing-disk.js'

const skip = await withoutFailingDisks()
const MIB = 1024 * 1024
const BLOCK = 4096

/** Reads at random, with enough requests in flight that every replica gets some. */
async function readAtOnce(t: Test, peer: FramePeer, random: Random, from: number, to: number): Promise<void> {
  const size = 16 * BLOCK
  const count = (to - from) / size
  for (let sequence = 0; sequence < count; sequence++) peer.send({sequence, type: FRAME.READ, offset: BigInt(from + random.below(count) * size), size})
  for (let answers = 0; answers < count; answers++) if ((await peer.next(60_000)).type !== FRAME.RESPONSE) t.fail('a read failed')
}

/** Where a layer has data within a range. */
function dataIn(file: string, range: Range): Range[] {
  const fd = openSync(file, 'r')
  try {
    return blocksIn(scannerFor(fd), fd, range)
  } finally {
    closeSync(fd)
  }
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
  const wide = {offset: 8 * MIB, length: 4 * MIB}
  // What the head hides is never read.
  const shown = without(dataIn(frozen, wide), dataIn(head, wide)).slice(0, 8)
  t.ok(shown.length > 0)
  await disk.damage(head, 4 * MIB, 64 * BLOCK)
  for (const {offset, length} of shown) await disk.damage(frozen, offset, Math.min(length, 8 * BLOCK))
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
  await until(() => snapshot(system, 'four').then(() => true, () => false), 'a snapshot of what is left can be taken')
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
  await system.ask(rpc => rpc.replicaAdd({address: bad.address, bytesPerSecond: 256n * 1024n}, {timeoutMs: 60_000}))
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
