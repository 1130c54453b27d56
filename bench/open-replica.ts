import {execFile} from 'node:child_process'
import {closeSync, fdatasyncSync, openSync, writeSync} from 'node:fs'
import {mkdtemp, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {promisify} from 'node:util'
import {createReplica} from '../src/replica/create-replica.js'
import {realDisk} from '../src/replica/disk-steps.js'
import {formatLayerMeta, newHeadMeta} from '../src/replica/layer-meta.js'
import {openReplica} from '../src/replica/open-replica.js'
import {formatVolumeMeta, newVolumeMeta} from '../src/replica/volume-meta.js'

/**
 * How long a replica takes to open, and how much memory its sector map takes: 1 TiB with 100 layers of some hundred
 * extents each, and 100 GiB with a million extents in two layers. Each is opened in a process of its own.
 * Usage: node dist/bench/open-replica.js [directory, default the system's temporary one]
 */
const BLOCK = 4096

interface Shape {
  readonly name: string
  readonly sizeBytes: number
  readonly layers: number
  readonly extentsPerLayer: number
}

const SHAPES: readonly Shape[] = [
  {name: 'empty', sizeBytes: 1024 ** 4, layers: 1, extentsPerLayer: 0},
  {name: 'many layers', sizeBytes: 1024 ** 4, layers: 100, extentsPerLayer: 300},
  {name: 'fragmented', sizeBytes: 100 * 1024 ** 3, layers: 2, extentsPerLayer: 500_000},
]

async function main(parent: string): Promise<void> {
  const base = await mkdtemp(join(parent, 'open-replica-'))
  try {
    for (const shape of SHAPES) {
      const directory = join(base, shape.name.replace(' ', '-'))
      await makeReplica(directory, shape)
      const {stdout} = await promisify(execFile)(process.execPath, [fileURLToPath(import.meta.url), '--open', directory])
      console.log(`${shape.name}: ${shape.sizeBytes / 1024 ** 3} GiB, ${shape.layers} layers of ${shape.extentsPerLayer} extents: ${stdout.trim()}`)
    }
  } finally {
    await rm(base, {recursive: true, force: true})
  }
}

async function measure(directory: string): Promise<void> {
  const before = process.memoryUsage()
  const start = performance.now()
  await using volume = await openReplica(directory)
  const elapsed = performance.now() - start
  const after = process.memoryUsage()
  const mib = (bytes: number): string => `${(bytes / 1024 ** 2).toFixed(1)} MiB`
  console.log(
    `${elapsed.toFixed(0)} ms, resident set ${mib(after.rss)} (+${mib(after.rss - before.rss)}), ` +
      `buffers ${mib(after.arrayBuffers - before.arrayBuffers)}, ${volume.usage().length} layers`,
  )
}

async function makeReplica(directory: string, shape: Shape): Promise<void> {
  await createReplica(directory, shape.sizeBytes)
  const block = Buffer.alloc(BLOCK, 1)
  let parent = ''
  for (let number = 0; number < shape.layers; number++) {
    const head = number === shape.layers - 1
    const file = head ? 'volume-head-000.img' : `volume-snap-s${number}.img`
    if (!head) await realDisk.createSparse(join(directory, file), shape.sizeBytes, 0o644)
    const fd = openSync(join(directory, file), 'r+')
    // Apart from each other, and at other places in each layer.
    const stride = Math.floor(shape.sizeBytes / BLOCK / Math.max(1, shape.extentsPerLayer))
    for (let extent = 0; extent < shape.extentsPerLayer; extent++) {
      writeSync(fd, block, 0, BLOCK, (extent * stride + ((number * 7) % stride)) * BLOCK)
    }
    fdatasyncSync(fd)
    closeSync(fd)
    await writeFile(join(directory, `${file}.meta`), formatLayerMeta(newHeadMeta(file, parent)))
    parent = file
  }
  await writeFile(join(directory, 'volume.meta'), formatVolumeMeta(newVolumeMeta(shape.sizeBytes, 'volume-head-000.img')))
}

if (process.argv[2] === '--open') await measure(process.argv[3] ?? '')
else await main(process.argv[2] ?? tmpdir())
