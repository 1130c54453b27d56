import {readFileSync, statSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica} from '../../src/replica/open-replica.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import {breakOpenFile} from './support/break-file.js'
import {upstreamReplica} from './support/fixture.js'
import {freezeHead} from './support/freeze.js'
import {freshPath} from './support/places.js'

const MIB = 1024 ** 2
const SIZE = 16 * MIB
const BLOCK = 4096

async function newReplica(t: Test): Promise<{directory: string; volume: ReplicaVolume}> {
  const directory = freshPath(t)
  await createReplica(directory, SIZE)
  return {directory, volume: await openReplica(directory)}
}

function read(volume: ReplicaVolume, offset: number, length: number): Buffer {
  const target = Buffer.alloc(length, 0xee)
  volume.readSync(target, 0, length, offset)
  return target
}

t.test('a write is done when the call returns, a durable one when the promise resolves', async t => {
  const {volume} = await newReplica(t)
  const source = Buffer.alloc(MIB, 7)
  t.equal(volume.write(source, 100, BLOCK, BLOCK), undefined)
  t.equal(volume.read(Buffer.alloc(BLOCK), 0, BLOCK, BLOCK), undefined)
  t.equal(volume.tryReadCached(Buffer.alloc(BLOCK), 0, BLOCK, BLOCK), true)
  t.equal(volume.write(source, 0, MIB, 4 * MIB), undefined)
  t.ok(read(volume, 4 * MIB, MIB).equals(source))
  t.type(volume.write(source, 0, BLOCK, 0, true), Promise)
  await volume.close()
})

t.test('what is not inside the volume or the buffer is refused before anything happens', async t => {
  const {volume} = await newReplica(t)
  const buffer = Buffer.alloc(BLOCK)
  for (const [start, length, offset] of [
    [0, BLOCK, SIZE],
    [0, BLOCK, SIZE - 1],
    [0, BLOCK, -1],
    [0, -1, 0],
    [1, BLOCK, 0],
    [-1, 10, 0],
    [0, NaN, 0],
    [0, 1, NaN],
    [0, 2 ** 53, 0],
  ] as const) {
    const what = `${start} ${length} ${offset}`
    t.throws(() => volume.write(buffer, start, length, offset), RangeError, `write ${what}`)
    t.throws(() => volume.read(buffer, start, length, offset), RangeError, `read ${what}`)
    t.throws(() => volume.readSync(buffer, start, length, offset), RangeError, `readSync ${what}`)
  }
  await t.rejects(volume.writeZeroes(SIZE - 1, 2, true), RangeError)
  await t.rejects(volume.discard(-BLOCK, BLOCK), RangeError)
  t.equal(volume.usage()[0]?.allocatedBytes, 0)
  await volume.close()
})

t.test('nothing is something too', async t => {
  const {volume} = await newReplica(t)
  t.equal(volume.write(Buffer.alloc(0), 0, 0, 100), undefined)
  t.equal(volume.read(Buffer.alloc(0), 0, 0, SIZE), undefined)
  await volume.writeZeroes(100, 0, false)
  t.equal(await volume.discard(100, 0), 0)
  t.equal(await volume.discard(100, BLOCK), 0, 'less than a block')
  t.equal(volume.usage()[0]?.allocatedBytes, 0)
  await volume.close()
})

t.test('overlapping writes take effect in the order of the calls', async t => {
  const {volume} = await newReplica(t)
  const large = Buffer.alloc(2 * MIB, 1)
  const pending: unknown[] = [
    volume.write(large, 0, MIB, 0),
    volume.write(Buffer.alloc(10, 2), 0, 10, 5000),
    volume.writeZeroes(8192, 100_000, true),
    volume.write(Buffer.alloc(BLOCK, 3), 0, BLOCK, 16384),
    volume.write(Buffer.alloc(BLOCK, 4), 0, BLOCK, MIB),
  ]
  t.same(pending.map(later => later instanceof Promise), [false, false, true, true, false], 'zeroing takes a while, and what overlaps it waits')
  await Promise.all(pending)
  const now = read(volume, 0, MIB + BLOCK)
  const wanted = Buffer.alloc(MIB + BLOCK, 1).fill(2, 5000, 5010).fill(0, 8192, 108_192).fill(3, 16384, 20480).fill(4, MIB)
  t.ok(now.equals(wanted))
  await volume.close()
})

t.test('closing finishes what was admitted, refuses the rest, and may be done twice', async t => {
  const {directory, volume} = await newReplica(t)
  const source = Buffer.alloc(MIB, 9)
  const admitted: unknown[] = [volume.write(source, 0, MIB, 0, true), volume.write(source, 0, MIB, 100), volume.writeZeroes(4 * MIB, MIB, false)]
  const target = Buffer.alloc(MIB)
  const reading = volume.read(target, 0, MIB, 8 * MIB)
  const closing = volume.close()
  const closed = {code: 'LH_CONFLICT', message: /is closed/}
  t.throws(() => volume.write(source, 0, 1, 0), closed)
  t.throws(() => volume.read(target, 0, 1, 0), closed)
  await t.rejects(volume.flush(), closed)
  await t.rejects(volume.discard(0, SIZE), closed)
  await Promise.all([...admitted, reading, closing, volume.close(), volume.abandon()])
  t.match(readFileSync(join(directory, 'volume.meta'), 'utf8'), '"Dirty":false')
  await using again = await openReplica(directory)
  t.ok(read(again, 0, MIB + 100).equals(Buffer.alloc(MIB + 100, 9)))
})

t.test('an abandoned replica stays dirty and keeps what was written', async t => {
  const {directory, volume} = await newReplica(t)
  await volume.write(Buffer.from('here'), 0, 4, 10)
  await volume.abandon()
  t.match(readFileSync(join(directory, 'volume.meta'), 'utf8'), '"Dirty":true')
  await using again = await openReplica(directory)
  t.equal(read(again, 10, 4).toString(), 'here')
})

t.test('a failed flush is the end: everything fails, volume.meta says why, and a reopen shows it', async t => {
  const {directory, volume} = await newReplica(t)
  await volume.write(Buffer.alloc(BLOCK, 1), 0, BLOCK, 0)
  breakOpenFile(join(directory, 'volume-head-000.img'))
  await t.rejects(volume.flush(), {code: 'LH_IO', message: /^flushing .*volume-head-000\.img/})
  t.throws(() => volume.write(Buffer.alloc(BLOCK), 0, BLOCK, 0), {code: 'LH_IO'})
  t.throws(() => volume.read(Buffer.alloc(BLOCK), 0, BLOCK, 0), {code: 'LH_IO'})
  t.match(volume.failure, {code: 'LH_IO'})
  await t.rejects(volume.close(), {code: 'LH_IO'})
  t.match(JSON.parse(readFileSync(join(directory, 'volume.meta'), 'utf8')), {Dirty: true, Error: /^flushing/})
  await using again = await openReplica(directory)
  t.match(again.meta.error, /^flushing/)
})

t.test('a failed write that cannot be taken back is the end as well', async t => {
  const {directory, volume} = await newReplica(t)
  breakOpenFile(join(directory, 'volume-head-000.img'))
  t.throws(() => volume.write(Buffer.alloc(BLOCK), 0, BLOCK, 0), {code: 'LH_NO_SPACE'})
  t.match(volume.failure, {message: /^taking back a failed write/})
  await t.rejects(volume.close())
  t.match(readFileSync(join(directory, 'volume.meta'), 'utf8'), '"Error":"taking back')
})

t.test('a failed write to blocks of the head is only an error', async t => {
  const {directory, volume} = await newReplica(t)
  await volume.write(Buffer.alloc(MIB, 1), 0, MIB, 0)
  breakOpenFile(join(directory, 'volume-head-000.img'))
  t.throws(() => volume.write(Buffer.alloc(BLOCK), 0, BLOCK, 0), {code: 'LH_NO_SPACE', message: /no space left on device/})
  await t.rejects(async () => volume.write(Buffer.alloc(128 * 1024), 0, 128 * 1024, 0), {code: 'LH_NO_SPACE'})
  t.equal(volume.failure, undefined)
  await volume.abandon()
})

t.test('discard gives space back, and only where nothing lies below', async t => {
  const {directory, volume} = await newReplica(t)
  await volume.write(Buffer.alloc(4 * MIB, 1), 0, 4 * MIB, 0)
  t.equal(await volume.discard(1, 2 * MIB), 2 * MIB - BLOCK)
  t.equal(await volume.discard(1, 2 * MIB), 0, 'a second time there is nothing to give')
  t.same([...volume.status(0, SIZE)], [
    {offset: 0, length: BLOCK, data: true},
    {offset: BLOCK, length: 2 * MIB - BLOCK, data: false},
    {offset: 2 * MIB, length: 2 * MIB, data: true},
    {offset: 4 * MIB, length: SIZE - 4 * MIB, data: false},
  ])
  await volume.close()
  await freezeHead(directory, 'a')
  const below = statSync(join(directory, 'volume-snap-a.img')).blocks
  const again = await openReplica(directory)
  await again.write(Buffer.alloc(4 * MIB, 2), 0, 4 * MIB, MIB)
  t.equal(await again.discard(0, SIZE), 2 * MIB, 'over the hole and past the end of the snapshot')
  t.ok(read(again, 0, BLOCK).equals(Buffer.alloc(BLOCK, 1)), 'what the head does not hold stays')
  t.ok(read(again, MIB, 4 * MIB).equals(Buffer.alloc(4 * MIB)), 'what it held reads zeros everywhere')
  t.equal(statSync(join(directory, 'volume-snap-a.img')).blocks, below)
  await again.close()
})

t.test('while a replica is being rebuilt nothing is concluded from what is missing below', async t => {
  const {directory, volume} = await newReplica(t)
  await volume.close()
  const path = join(directory, 'volume.meta')
  writeFileSync(path, readFileSync(path, 'utf8').replace('"Rebuilding":false', '"Rebuilding":true'))
  await using again = await openReplica(directory)
  t.equal(again.meta.rebuilding, true)
  t.throws(() => again.write(Buffer.alloc(512), 0, 512, 0), {code: 'LH_UNSUPPORTED', message: /being rebuilt/})
  await again.write(Buffer.alloc(2 * BLOCK, 1), 0, 2 * BLOCK, 0)
  await again.write(Buffer.alloc(512, 2), 0, 512, 100)
  t.equal(await again.discard(0, SIZE), 0)
  t.ok(read(again, 0, BLOCK).equals(Buffer.alloc(BLOCK)))
  t.match([...again.status(0, SIZE)], [{length: 2 * BLOCK, data: true}, {data: false}], 'zeros hide whatever arrives below them')
  await again.writeZeroes(MIB, MIB, true)
  t.match([...again.status(MIB, MIB)], [{length: MIB, data: true}])
})

t.test('a revision counter that holds no number', async t => {
  const directory = upstreamReplica(t)
  writeFileSync(join(directory, 'revision.counter'), 'x')
  await t.rejects(openReplica(directory), {code: 'LH_CORRUPT', message: /does not hold a number/})
  await using volume = await openReplica(directory, {revisionCounter: false})
  t.equal(volume.revision, undefined)
})

t.test('the revision counter continues from where it is set', async t => {
  const directory = upstreamReplica(t)
  const volume = await openReplica(directory)
  volume.revision = 999
  await volume.write(Buffer.alloc(1), 0, 1, 0)
  t.equal(volume.revision, 1000)
  await volume.discard(0, 1)
  await volume.abandon()
  t.equal(readFileSync(join(directory, 'revision.counter'), 'latin1').replace(/\0+$/, ''), '1001')
  t.equal(statSync(join(directory, 'revision.counter')).size, 4096)
})
