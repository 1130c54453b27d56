// A snapshot with much that is wrong, on a disk that returns errors for single blocks of it.
import {closeSync, fdatasyncSync, openSync, readFileSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {ReplicaMode} from '../../src/protocol/proto/generated/controller.js'
import {replicaImage} from '../support/replica-image.js'
import {until} from '../support/until.js'
import {ends, modeOf, rig, scrub, snapshot} from './support/disk-error-rig.js'
import {withoutFailingDisks} from './support/failing-disk.js'

const skip = await withoutFailingDisks()
const BLOCK = 4096

for (const kind of ['ext4', 'xfs'] as const) {
  t.test(`${kind}: runs of wrong blocks, with bad sectors in them and beside them`, {skip}, async t => {
    const all = await rig(t, kind, 3)
    const {disk, system, load, bad, others} = all
    await load.progress(4000)
    await load.stop()
    await snapshot(system, 'kept')
    const file = join(bad.directory, 'volume-snap-kept.img')
    const before = readFileSync(file)
    const held = [...Array(before.length / BLOCK).keys()].filter(block => before.subarray(block * BLOCK, (block + 1) * BLOCK).some(byte => byte !== 0))
    // Of each 64 blocks that are held 40 are wrong; a few among these, at their ends and in the middle of what is right cannot be read.
    const wrong = held.filter((_, index) => index % 64 < 40)
    const unreadable = held.filter((_, index) => [0, 7, 8, 39, 40, 50].includes(index % 64)).slice(0, 60)
    t.ok(wrong.length > 200 && unreadable.length > 20, `${wrong.length} are wrong, ${unreadable.length} cannot be read`)
    const fd = openSync(file, 'r+')
    for (const block of wrong) writeSync(fd, `wrong ${block}`, block * BLOCK + 100)
    fdatasyncSync(fd)
    closeSync(fd)
    for (const block of unreadable) await disk.damage(file, block * BLOCK, BLOCK)
    disk.forget(file)
    const status = await scrub(system)
    t.equal(status.healed, status.found, 'all is healed at once')
    t.same(status.findings.filter(({healed}) => !healed), [])
    t.equal(await disk.fail({}), 0, 'nothing bad is left')
    disk.forget(file)
    t.ok(readFileSync(file).equals(before), 'the file is what it was')
    t.ok((await replicaImage(others[0]!.directory, 'kept')).equals(before), 'as are those of the others')
    t.match(await scrub(system), {found: 0n})
    t.equal(await modeOf(system, bad), ReplicaMode.RW)
    load.start()
    await ends(t, all, ['kept'])
  })
}

t.test('the good replica cannot read some of what is between the wrong blocks of another one', {skip}, async t => {
  const all = await rig(t, 'ext4', 3)
  const {disk, system, load, bad, others} = all
  await load.progress(4000)
  await load.stop()
  await snapshot(system, 'kept')
  const before = await replicaImage(bad.directory, 'kept')
  const held = [...Array(before.length / BLOCK).keys()].filter(block => before.subarray(block * BLOCK, (block + 1) * BLOCK).some(byte => byte !== 0))
  const file = join(bad.directory, 'volume-snap-kept.img')
  for (const block of held.filter((_, index) => index % 16 === 5).slice(0, 60)) await disk.damage(file, block * BLOCK, BLOCK)
  disk.forget(file)
  // The first replica is asked first for what is good, and this is another one.
  const fd = openSync(join(others[1]!.directory, 'volume-snap-kept.img'), 'r+')
  for (const block of held.filter((_, index) => index % 16 !== 5)) writeSync(fd, 'wrong', block * BLOCK + 100)
  closeSync(fd)
  await until(async () => {
    const {healed, found} = await scrub(system)
    t.equal(healed, found)
    return found === 0n
  }, 'nothing is wrong any more', 60_000)
  t.equal(await disk.fail({}), 0)
  for (const {directory} of system.replicas) t.ok((await replicaImage(directory, 'kept')).equals(before))
  load.start()
  await ends(t, all, ['kept'])
})
