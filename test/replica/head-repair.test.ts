import {closeSync, openSync, readFileSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {createReplica} from '../../src/replica/create-replica.js'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import type {ReplicaVolume} from '../../src/replica/replica-volume.js'
import {breakOpenFile} from './support/break-file.js'

const BLOCK = 4096
const SIZE = 64 * BLOCK + 512

async function open(t: Test): Promise<ReplicaVolume> {
  const directory = join(t.testdir({}), 'r')
  await createReplica(directory, SIZE)
  const volume = await openReplica(directory)
  t.teardown(() => volume.abandon())
  return volume
}

function damageHead({directory}: ReplicaVolume, block: number): void {
  const fd = openSync(join(directory.path, directory.volume.head), 'r+')
  writeSync(fd, 'damaged', block * BLOCK)
  closeSync(fd)
}

t.test('blocks of the head are rewritten, and nothing else', async t => {
  const volume = await open(t)
  void volume.write(Buffer.alloc(4 * BLOCK, 1), 0, 4 * BLOCK, 0)
  await volume.snapshot({name: 'a', userCreated: true, created: '2026-01-02T03:04:05Z', labels: {}})
  void volume.write(Buffer.alloc(BLOCK, 2), 0, BLOCK, BLOCK)
  await volume.flush()
  damageHead(volume, 1)
  // Block 0 is the snapshot's, 1 the head's, 2 and 3 the snapshot's, 4 nobody's.
  const before = readFileSync(join(volume.directory.path, 'volume-snap-a.img'))
  t.equal(await volume.repair(Buffer.concat([Buffer.alloc(BLOCK, 9), Buffer.alloc(BLOCK, 2), Buffer.alloc(3 * BLOCK, 9)]), 0), 3 * BLOCK)
  t.same(readFileSync(join(volume.directory.path, 'volume-snap-a.img')), before)
  await volume.close()
  await using view = await openVolumeView(volume.directory.path)
  const bytes = Buffer.alloc(5 * BLOCK)
  view.reader.readSync(bytes, 0, bytes.length, 0)
  t.same([0, 1, 2, 3, 4].map(block => bytes[block * BLOCK]), [1, 2, 1, 1, 0])
})

t.test('the last part of a block, at the end of the volume', async t => {
  const volume = await open(t)
  void volume.write(Buffer.alloc(512, 1), 0, 512, 64 * BLOCK)
  t.equal(await volume.repair(Buffer.alloc(512, 3), 64 * BLOCK), 0)
  const bytes = Buffer.alloc(512)
  volume.readSync(bytes, 0, 512, 64 * BLOCK)
  t.same(bytes, Buffer.alloc(512, 3))
})

t.test('a repair waits for a change of the same range that is under way', async t => {
  const volume = await open(t)
  void volume.write(Buffer.alloc(8 * BLOCK, 1), 0, 8 * BLOCK, 0)
  const zeroes = volume.writeZeroes(0, 8 * BLOCK, true)
  const repair = volume.repair(Buffer.alloc(BLOCK, 7), 0)
  await Promise.all([zeroes, repair])
  const bytes = Buffer.alloc(2 * BLOCK)
  volume.readSync(bytes, 0, bytes.length, 0)
  t.equal(bytes[BLOCK], 0)
})

t.test('what is refused, and what the disk refuses', async t => {
  const volume = await open(t)
  await t.rejects(volume.repair(Buffer.alloc(100), 0), {code: 'LH_USAGE'})
  await t.rejects(volume.repair(Buffer.alloc(BLOCK), 512), {code: 'LH_USAGE'})
  await t.rejects(volume.repair(Buffer.alloc(BLOCK), 64 * BLOCK), RangeError)
  void volume.write(Buffer.alloc(BLOCK, 1), 0, BLOCK, 0)
  breakOpenFile(join(volume.directory.path, volume.directory.volume.head))
  await t.rejects(volume.repair(Buffer.alloc(BLOCK, 1), 0), {code: 'LH_NO_SPACE'})
})
