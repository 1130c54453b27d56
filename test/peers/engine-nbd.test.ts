// An engine over replicas in processes of their own, used through NBD by programs that nobody here wrote.
import {createHash, randomBytes} from 'node:crypto'
import {writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {seededRandom} from '../replica/support/random.js'
import {applyToModel, commandOf, qemuIo, type Change} from './support/change.js'
import {verifyByFio, withoutFio} from './support/fio.js'
import {LiveVolume, type EngineOptions} from './support/live-volume.js'
import {attempt, missing, tool} from './support/tool.js'

const MIB = 1024 * 1024
/** Its end is on no block. */
const SIZE = 40 * MIB + 512
const skip = (await missing('nbdinfo', 'nbdcopy', 'qemu-io', 'qemu-img')) || (await withoutFio())

t.test('three replicas, a unix socket', {skip}, async t => {
  const {volume, uri, model} = await begin(t, 3, {transport: 'unix'})
  await looksAround(t, volume, uri)
  await mapsWhatIsWritten(t, uri, model)
  await takesChangesAnywhere(t, volume, uri, model)
  await copies(t, volume, uri, model)
  await verifies(t, uri)
  const sums = await endsWithTheSameEverywhere(t, volume, uri)
  t.same(await volume.servedByEach(), sums, 'and serves it')
})

t.test('two replicas, TCP', {skip}, async t => {
  const {volume, uri, model} = await begin(t, 2, {transport: 'tcp'})
  await looksAround(t, volume, uri)
  await takesChangesAnywhere(t, volume, uri, model)
  await copies(t, volume, uri, model)
  await verifies(t, uri)
  await endsWithTheSameEverywhere(t, volume, uri)
})

t.test('--write-through', {skip}, async t => {
  const {volume, uri, model} = await begin(t, 2, {flags: ['--write-through']})
  await mapsWhatIsWritten(t, uri, model)
  await takesChangesAnywhere(t, volume, uri, model)
  await verifies(t, uri)
  await endsWithTheSameEverywhere(t, volume, uri)
})

async function begin(t: Test, replicas: number, options: EngineOptions): Promise<{volume: LiveVolume; uri: string; model: Buffer}> {
  const volume = new LiveVolume(t, {sizeBytes: SIZE, replicas})
  return {volume, uri: await volume.start(options), model: Buffer.alloc(SIZE)}
}

/** Gives the sum of each replica. */
async function endsWithTheSameEverywhere(t: Test, volume: LiveVolume, uri: string): Promise<string[]> {
  const sums = Array<string>(volume.directories.length).fill(await volume.sum(uri))
  await volume.stop()
  t.same(await volume.sumsOfReplicas(), sums, 'after a clean stop every replica has in its file what was served')
  return sums
}

async function looksAround(t: Test, volume: LiveVolume, uri: string): Promise<void> {
  const {exports} = JSON.parse(await tool(['nbdinfo', '--json', uri])) as {exports: unknown[]}
  t.match(exports, [
    {
      'export-name': volume.name,
      'export-size': SIZE,
      contexts: ['base:allocation'],
      is_read_only: false,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
    },
  ])
  t.equal((await tool(['nbdinfo', '--size', uri])).trim(), `${SIZE}`)
  t.match(await attempt(['nbdinfo', '--size', uri.replace(volume.name, 'another')]), {code: 1, stderr: /another/})
  t.match(JSON.parse(await tool(['qemu-img', 'info', '--output=json', uri])), {'virtual-size': SIZE, format: 'raw'})
}

interface MapEntry {
  readonly offset: number
  readonly length: number
  readonly description: string
}

async function mapsWhatIsWritten(t: Test, uri: string, model: Buffer): Promise<void> {
  /** Offset and length of all that is no hole. */
  const map = async (): Promise<number[][]> => {
    const entries = JSON.parse(await tool(['nbdinfo', '--map', '--json', uri])) as MapEntry[]
    t.equal(entries.reduce((end, {offset, length}) => (offset === end ? end + length : NaN), 0), SIZE, 'the map is whole')
    return entries.filter(({description}) => description === 'data').map(({offset, length}) => [offset, length])
  }
  t.same(await map(), [], 'a new volume is one hole')
  const changes: Change[] = [
    {kind: 'write', offset: MIB, length: 4096, fill: 1},
    {kind: 'write', offset: 3 * MIB, length: 8192, fill: 2},
    {kind: 'write', offset: 511, length: 2, fill: 3},
    {kind: 'write', offset: 20_000_000, length: 1, fill: 4},
    {kind: 'durable', offset: SIZE - 512, length: 512, fill: 5},
  ]
  await make(uri, model, changes)
  const written = [
    [0, 4096],
    [MIB, 4096],
    [3 * MIB, 8192],
    [19_996_672, 4096],
    [40 * MIB, 512],
  ]
  t.same(await map(), written, 'what was written is there, in whole blocks, and nothing else')
  await make(uri, model, [{kind: 'hole', offset: 3 * MIB, length: 4096}])
  await qemuIo(uri, `discard ${MIB} 4096`, `read -P 0 ${MIB} 4096`)
  model.fill(0, MIB, MIB + 4096)
  t.same(await map(), [written[0], [3 * MIB + 4096, 4096], written[3], written[4]], 'what was discarded is a hole again')
}

/** Requests of all kinds and sizes, on no boundaries; then the whole volume is compared. */
async function takesChangesAnywhere(t: Test, volume: LiveVolume, uri: string, model: Buffer): Promise<void> {
  const random = seededRandom(t)
  const kinds = ['write', 'write', 'durable', 'zero', 'hole'] as const
  for (let round = 0; round < 3; round++) {
    const changes = Array.from({length: 60}, (): Change => {
      const kind = kinds[random.below(kinds.length)]!
      const length = 1 + random.below(random.oneIn(5) ? 3 * MIB : random.oneIn(2) ? 10_000 : 600)
      const offset = random.oneIn(10) ? SIZE - length : random.below(SIZE - length)
      return {kind, offset, length, ...(kind === 'write' || kind === 'durable' ? {fill: 1 + random.below(255)} : {})}
    })
    await make(uri, model, changes)
  }
  const reference = join(volume.folder, 'reference')
  writeFileSync(reference, model)
  t.match(await tool(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', reference, uri]), /identical/, 'after changes anywhere')
  // 64 at once, each read back with its own pattern.
  const at = (index: number): string => `${index * 100_001} 100000`
  const indices = Array.from({length: 64}, (_, index) => index)
  await qemuIo(uri, ...indices.map(index => `aio_write -P ${index + 1} ${at(index)}`), 'aio_flush', ...indices.map(index => `aio_read -P ${index + 1} ${at(index)}`), 'aio_flush')
  for (const index of indices) model.fill(index + 1, index * 100_001, index * 100_001 + 100_000)
  t.match(await attempt(['qemu-io', '-f', 'raw', '-c', `read -P 77 0 4096`, uri]), {code: 1, stdout: /Pattern verification failed/}, 'qemu-io does notice')
}

async function copies(t: Test, volume: LiveVolume, uri: string, model: Buffer): Promise<void> {
  t.equal(await volume.sum(uri), sumOf(model), 'nbdcopy reads what qemu-io wrote')
  const source = join(volume.folder, 'source')
  for (const flags of [['--connections=1', '--requests=1'], ['--connections=4', '--requests=64'], ['--connections=2', '--request-size=33554432', '--requests=2'], ['--synchronous']]) {
    // Data, a hole, data: another content each time.
    const data = Buffer.concat([randomBytes(9 * MIB), Buffer.alloc(20 * MIB), randomBytes(7 * MIB + 1)])
    data.copy(model)
    model.fill(0, data.length, SIZE - 512)
    model.fill(7, SIZE - 512)
    writeFileSync(source, model)
    await tool(['nbdcopy', '--flush', ...flags, source, uri])
    const back = join(volume.folder, 'back')
    await tool(['truncate', '-s', '0', back])
    await tool(['truncate', '-s', `${SIZE}`, back])
    await tool(['nbdcopy', ...flags, uri, back])
    await tool(['cmp', source, back])
    t.pass(`nbdcopy ${flags.join(' ')}`)
  }
  const qcow = join(volume.folder, 'copy.qcow2')
  const again = join(volume.folder, 'again')
  t.match(await tool(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, uri]), /identical/)
  await tool(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uri, qcow])
  await tool(['qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', qcow, again])
  await tool(['cmp', source, again])
  await qemuIo(uri, `write -P 9 0 ${8 * MIB}`, 'flush')
  await tool(['qemu-img', 'convert', '-n', '-W', '-m', '8', '-f', 'qcow2', '-O', 'raw', qcow, uri])
  t.match(await tool(['qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', qcow, uri]), /identical/, 'qemu-img convert, both ways')
  const map = JSON.parse(await tool(['qemu-img', 'map', '-f', 'raw', '--output=json', uri])) as {start: number; length: number; zero: boolean}[]
  t.ok(map.some(({start, length, zero}) => zero && start <= 9 * MIB + 4096 && start + length >= 29 * MIB - 4096), 'qemu-img map shows the hole')
}

async function verifies(t: Test, uri: string): Promise<void> {
  await verifyByFio(uri, '--rw=randrw', '--bs=4k', '--iodepth=32', '--size=16m')
  await verifyByFio(uri, '--rw=randwrite', '--bsrange=512-1m', '--bs_unaligned', '--iodepth=16', '--size=48m', '--fsync=32')
  await verifyByFio(uri, '--rw=randwrite', '--bsrange=512-128k', '--numjobs=3', '--size=12m', '--offset_increment=16m', '--iodepth=8')
  t.pass('fio verified what it wrote')
}

async function make(uri: string, model: Buffer, changes: readonly Change[]): Promise<void> {
  await qemuIo(uri, ...changes.map(commandOf), 'flush')
  for (const change of changes) applyToModel(model, change)
}

function sumOf(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}
