// Replicas that upstream's engine has written, served by ours and changed through NBD by qemu-io.
import {createHash} from 'node:crypto'
import {readFileSync} from 'node:fs'
import {dirname, join} from 'node:path'
import t, {type Test} from 'tap'
import {upstreamReplica, upstreamSums} from '../replica/support/fixture.js'
import {seededRandom, type Random} from '../replica/support/random.js'
import {applyToModel, commandOf, qemuIo, type Change} from './support/change.js'
import {LiveVolume, sumsOfFiles} from './support/live-volume.js'
import {missing, tool} from './support/tool.js'

const MIB = 1024 * 1024
const SIZE = 16 * MIB
const HEAD = 'volume-head-004.img'
const skip = await missing('nbdcopy', 'qemu-io', 'tar', 'cp')

t.test("upstream's replicas are served, changed, and left as upstream would leave them", {skip}, async t => {
  const random = seededRandom(t)
  const first = upstreamReplica(t)
  const second = join(dirname(first), 'r2')
  await tool(['cp', '--archive', first, second])
  const found = filesOf(first)
  const snapshots = await sumsOfFiles(first, isSnapshot)
  t.equal(Object.keys(snapshots).length, 8, 'four layers, each with its metadata')

  const volume = new LiveVolume(t, {sizeBytes: SIZE, directories: [first, second]})
  let uri = await volume.start()
  t.equal(await volume.sum(uri), upstreamSums().get('head'), 'read as upstream served it')
  t.equal(filesOf(first).meta, found.meta.replace('"Dirty":false', '"Dirty":true'), 'dirty while it is open, and nothing else')

  let model: Buffer = readFileSync(await volume.copyOut(uri, 'copy'))
  for (let round = 0; round < 2; round++) {
    await make(uri, model, Array.from({length: 60}, () => anyChange(random)))
    model = await discards(t, volume, uri, model, random)
    await volume.stop()
    for (const directory of [first, second]) {
      const left = filesOf(directory)
      t.equal(left.meta, found.meta, 'volume.meta: the same keys in the same order, and clean')
      t.equal(left.headMeta, found.headMeta)
      t.same(await sumsOfFiles(directory, isSnapshot), snapshots, 'no byte of a snapshot or of its metadata was changed')
      t.equal(left.counter.length, 4096)
      t.ok(left.revision > found.revision, 'what was written is counted')
      t.equal(left.revision, filesOf(first).revision, 'and equally often on both')
    }
    uri = await volume.start()
    t.same(await volume.modes(), ['RW', 'RW'], 'neither counts as older than the other')
    t.ok(readFileSync(await volume.copyOut(uri, 'copy')).equals(model), 'all is there after a restart')
  }
  await make(uri, model, Array.from({length: 20}, () => anyChange(random)))
  await volume.engine.kill()
  uri = await volume.startEngine()
  // One of them is compared with the other first.
  await volume.resynced()
  await volume.stop()
  t.same(await volume.servedByEach(), Array(2).fill(sumOf(model)), 'on each replica')
})

t.test('writes of some bytes beside those that upstream has widened to blocks', {skip}, async t => {
  const volume = new LiveVolume(t, {sizeBytes: SIZE, directories: [upstreamReplica(t)]})
  const uri = await volume.start()
  const model = readFileSync(await volume.copyOut(uri, 'copy'))
  // Edges that the README of the fixture tells of, and the end of the volume.
  const edges = [100, 150, 65_536, 70_000, 70_333, 165_536, 8_388_608, 8_389_120, 8_389_632, SIZE - 4096, SIZE - 1]
  for (const [index, edge] of edges.entries()) {
    await make(uri, model, [
      {kind: 'write', offset: edge, length: 1, fill: 100 + index},
      {kind: 'durable', offset: edge - 3, length: 3, fill: 200 + index},
      {kind: 'zero', offset: edge - 5, length: 2},
    ])
  }
  t.ok(readFileSync(await volume.copyOut(uri, 'copy')).equals(model))
  await volume.stop()
})

async function make(uri: string, model: Buffer, changes: readonly Change[]): Promise<void> {
  await qemuIo(uri, ...changes.map(commandOf), 'flush')
  for (const change of changes) applyToModel(model, change)
}

function anyChange(random: Random): Change {
  const length = 1 + random.below(random.oneIn(6) ? MIB : 10_000)
  const offset = random.oneIn(10) ? SIZE - length : random.below(SIZE - length)
  if (random.oneIn(4)) return {kind: random.oneIn(2) ? 'zero' : 'hole', offset, length}
  return {kind: random.oneIn(5) ? 'durable' : 'write', offset, length, fill: 1 + random.below(255)}
}

/** Gives the model as it is now: what a discard leaves is not for the initiator to say. */
async function discards(t: Test, volume: LiveVolume, uri: string, before: Buffer, random: Random): Promise<Buffer> {
  const block = 4096 * random.below(1024)
  await make(uri, before, [{kind: 'write', offset: block, length: 65_536, fill: 0xdd}])
  await qemuIo(uri, `discard ${block} 65536`, `read -P 0 ${block} 65536`)
  before.fill(0, block, block + 65_536)

  const offset = random.below(SIZE / 2)
  const length = MIB + random.below(2 * MIB)
  await qemuIo(uri, `discard ${offset} ${length}`, 'flush')
  const after = readFileSync(await volume.copyOut(uri, 'copy'))
  const differs = after.findIndex((byte, at) => byte !== before[at] && !(byte === 0 && at >= offset && at < offset + length))
  t.equal(differs, -1, 'after a discard a range reads zeros or what it read before, and the rest is as it was')
  return after
}

interface Files {
  readonly meta: string
  readonly headMeta: string
  readonly counter: Buffer
  readonly revision: number
}

function filesOf(directory: string): Files {
  const counter = readFileSync(join(directory, 'revision.counter'))
  return {
    // With a space before the newline that upstream does not see.
    meta: readFileSync(join(directory, 'volume.meta'), 'utf8').replace(/ \n$/, '\n'),
    headMeta: readFileSync(join(directory, `${HEAD}.meta`), 'utf8'),
    counter,
    revision: Number(counter.toString('latin1').replace(/\0+$/, '')),
  }
}

function isSnapshot(name: string): boolean {
  return name.startsWith('volume-snap-')
}

function sumOf(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}
