// What it takes to compare a snapshot on three replicas and to heal it: nothing bad, bad blocks all over one replica's file, bad blocks side by side, and both.
//
//   npm run bench -- scrub [--size 256m] [--bad 5000] [--profile DIR]
//
// Reading stays at half of the time, so that a scrub of a snapshot in which nothing is bad already takes what the first row says.
import type {ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {mkdtemp, open, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {parseArgs} from 'node:util'
import {execa} from 'execa'
import {formatTable} from '../src/cli/table.js'
import {parseAddress} from '../src/lib/address.js'
import {parseSize} from '../src/lib/sizes.js'
import {connect} from '../src/protocol/grpc/client.js'
import {ControllerServiceDefinition, type VolumeScrubStatusResponse} from '../src/protocol/proto/generated/controller.js'
import {BLOCK_BYTES} from '../src/protocol/scrub-units.js'
import {randomLike} from './support/backup-image.js'
import {startLonghorn} from './support/servers.js'

const REPLICAS = 3
const POLL_MS = 20
const CHUNK_BYTES = 4 * 1024 * 1024

const {values} = parseArgs({options: {size: {type: 'string', default: '256m'}, bad: {type: 'string', default: '5000'}, profile: {type: 'string'}}})
const sizeBytes = parseSize(values.size)
const blocks = sizeBytes / BLOCK_BYTES
const bad = Number(values.bad)
const nodeFlags = values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values.profile}`]

interface Row {
  readonly what: string
  readonly seconds: string
  readonly found: string
}

/** Each replica and the engine; ended the other way round. */
const processes: ChildProcess[] = []

async function start(args: readonly string[]): Promise<Record<string, string>> {
  const {child, ready} = await startLonghorn(args, nodeFlags)
  processes.push(child)
  return ready
}

async function writeRandom(path: string): Promise<void> {
  await using file = await open(path, 'w')
  for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) await file.write(randomLike(Math.min(CHUNK_BYTES, sizeBytes - at), at / CHUNK_BYTES), 0, undefined, at)
  await file.sync()
}

/** Not two side by side. */
function scattered(): number[] {
  return Array.from({length: bad}, (_, index) => Math.floor((index * blocks) / bad))
}

function sideBySide(): number[] {
  return Array.from({length: bad}, (_, index) => blocks - bad - 100 + index)
}

async function damage(file: string, which: readonly number[]): Promise<void> {
  await using damaged = await open(file, 'r+')
  for (const block of which) await damaged.write(randomLike(BLOCK_BYTES, 1_000_000 + block), 0, BLOCK_BYTES, block * BLOCK_BYTES)
  await damaged.sync()
}

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'longhorn-scrub-'))
  const image = join(directory, 'image')
  const rows: Row[] = []
  try {
    const replicas: string[] = []
    for (let index = 0; index < REPLICAS; index++) replicas.push((await start(['replica', join(directory, `${index}`), '--size', `${sizeBytes}`, '--listen', '127.0.0.1:0'])).control!)
    const frontend = ['--frontend', 'nbd', '--frontend-listen', `unix:${join(directory, 'engine.sock')}`]
    const engine = await start(['engine', 'bench', '--size', `${sizeBytes}`, '--listen', '127.0.0.1:0', ...replicas.flatMap(address => ['--replica', address]), ...frontend])
    await writeRandom(image)
    await execa('nbdcopy', ['--flush', image, engine.endpoint!])
    const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: parseAddress(engine.control!)})
    await rpc.volumeSnapshot({name: 's', labels: new Map(), freezeFilesystem: false})
    const layer = join(directory, '1', 'volume-snap-s.img')
    const scrub = async (): Promise<VolumeScrubStatusResponse> => {
      await rpc.volumeScrub({})
      for (;;) {
        const status = await rpc.volumeScrubStatus({})
        if (status.state === 'error') throw new Error(`the scrub ended early: ${status.error}`)
        if (status.state === 'complete') return status
        await sleep(POLL_MS)
      }
    }
    const measure = async (what: string, which: readonly number[]): Promise<void> => {
      await damage(layer, which)
      await execa('sync', ['--file-system', directory])
      const before = performance.now()
      const {found, healed} = await scrub()
      const seconds = (performance.now() - before) / 1000
      if (found !== healed) throw new Error(`${found} ranges differed, ${healed} of them were healed`)
      await execa('cmp', [image, layer])
      rows.push({what, seconds: `${seconds.toFixed(2)} s`, found: `${found}`})
    }
    await measure('nothing is bad', [])
    await measure(`${bad} blocks all over it`, scattered())
    await measure(`${bad} blocks side by side`, sideBySide())
    await measure('both', [...new Set([...scattered(), ...sideBySide()])])
    rpc.destroy()
  } finally {
    for (const child of processes.reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const exited = once(child, 'exit')
      child.kill('SIGTERM')
      await exited
    }
    await rm(directory, {recursive: true, force: true})
  }
  console.log(
    formatTable<Row>(
      [
        {header: `${values.size}, ${REPLICAS} replicas`, value: row => row.what},
        {header: 'seconds', value: row => row.seconds, align: 'right'},
        {header: 'ranges', value: row => row.found, align: 'right'},
      ],
      rows,
    ),
  )
}

await main()
