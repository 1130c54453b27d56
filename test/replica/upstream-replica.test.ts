import {createHash} from 'node:crypto'
import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {openReplica, openVolumeView} from '../../src/replica/open-replica.js'
import type {LayerReader} from '../../src/replica/layer-reader.js'
import {upstreamReplica, upstreamSums} from './support/fixture.js'
import {seededRandom} from './support/random.js'

const SNAPSHOTS = ['one', 'two', 'three', 'four']

async function sum(reader: LayerReader, sizeBytes: number): Promise<string> {
  const hash = createHash('sha256')
  const buffer = Buffer.alloc(300_000, 0xee)
  // Pieces that are no multiple of anything, through all three ways of reading.
  for (let offset = 0, piece = 0; offset < sizeBytes; piece++) {
    const length = Math.min(buffer.length, sizeBytes - offset)
    if (piece % 3 === 0) reader.readSync(buffer, 0, length, offset)
    else if (piece % 3 === 1) await reader.readAsync(buffer, 0, length, offset)
    else await reader.read(buffer, 0, length, offset)
    hash.update(buffer.subarray(0, length))
    offset += length
  }
  return hash.digest('hex')
}

async function checkSnapshots(t: Test, directory: string): Promise<void> {
  const sums = upstreamSums()
  for (const name of SNAPSHOTS) {
    await using view = await openVolumeView(directory, `volume-snap-${name}.img`)
    t.equal(await sum(view.reader, view.sizeBytes), sums.get(name), name)
  }
}

t.test('every snapshot and the head read as upstream served them', async t => {
  const directory = upstreamReplica(t)
  await checkSnapshots(t, directory)
  await using view = await openVolumeView(directory)
  t.equal(await sum(view.reader, view.sizeBytes), upstreamSums().get('head'), 'head')
})

t.test('a view of a layer that does not exist', async t => {
  await t.rejects(openVolumeView(upstreamReplica(t), 'volume-snap-five.img'), {code: 'LH_NOT_FOUND'})
})

t.test("snapshots stay as they are under our writes, zeroes and discards, and upstream's rules hold after close", async t => {
  const directory = upstreamReplica(t)
  const random = seededRandom(t)
  const before = readFileSync(join(directory, 'volume.meta'), 'utf8')
  const volume = await openReplica(directory)
  t.equal(readFileSync(join(directory, 'volume.meta'), 'utf8').replace(/ \n$/, '\n'), before.replace('"Dirty":false', '"Dirty":true'), 'dirty while open')
  const size = volume.sizeBytes
  const model = Buffer.alloc(size)
  volume.readSync(model, 0, size, 0)
  const revision = volume.revision ?? 0

  const source = Buffer.alloc(512 * 1024)
  for (let step = 0; step < 200; step++) {
    const length = 1 + random.below(random.oneIn(10) ? source.length : 10_000)
    const offset = random.below(size - length)
    random.fill(source)
    await volume.write(source, 0, length, offset)
    source.copy(model, offset, 0, length)
  }
  await volume.writeZeroes(1_000_001, 3_000_000, true)
  model.fill(0, 1_000_001, 4_000_001)
  await volume.writeZeroes(5_000_001, 300_000, false)
  model.fill(0, 5_000_001, 5_300_001)
  await volume.flush()
  t.equal(volume.revision, revision + 202)

  const read = Buffer.alloc(size)
  volume.readSync(read, 0, size, 0)
  t.ok(read.equals(model), 'before the discard')
  // What a discard leaves is seen in the model test; here only that snapshots do not notice.
  await volume.discard(0, size)
  volume.readSync(model, 0, size, 0)
  await volume.close()

  t.equal(readFileSync(join(directory, 'volume.meta'), 'utf8').replace(/ \n$/, '\n'), before, 'clean again, nothing else changed')
  const counter = readFileSync(join(directory, 'revision.counter'))
  t.equal(counter.length, 4096)
  t.equal(counter.toString('latin1').replace(/\0+$/, ''), `${revision + 203}`)
  await checkSnapshots(t, directory)

  await using view = await openVolumeView(directory)
  view.reader.readSync(read, 0, size, 0)
  t.ok(read.equals(model), 'the same after a reopen')
})
