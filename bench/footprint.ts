// What a daemon costs that does nothing: resident memory of an idle replica and an idle engine, for a small and a large
// volume, and how long the command line takes to say its version, beside an empty Node program in the same run.
//
//   npm run bench -- footprint
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import {execa} from 'execa'
import {formatTable} from '../src/cli/table.js'
import {median} from './support/median.js'
import {residentMiB, serveLonghorn} from './support/servers.js'

const LONGHORN = fileURLToPath(new URL('../../bin/longhorn', import.meta.url))
const SIZES = {'1 GiB': 1024 ** 3, '1 TiB': 1024 ** 4}
const STARTS = 15
const SETTLE_MS = 2000

const directory = await mkdtemp(join(tmpdir(), 'longhorn-bench-'))
try {
  console.log(await idleMemory())
  console.log(`\n${await startTimes()}`)
} finally {
  await rm(directory, {recursive: true, force: true})
}

async function idleMemory(): Promise<string> {
  const rows: {size: string; replica: number; engine: number}[] = []
  for (const [size, bytes] of Object.entries(SIZES)) {
    const served = await serveLonghorn(join(directory), bytes, 1)
    try {
      await delay(SETTLE_MS)
      const [replica, engine] = served.processes
      rows.push({size, replica: residentMiB(replica?.pid), engine: residentMiB(engine?.pid)})
    } finally {
      await served.close()
      await rm(join(directory, 'replica-0'), {recursive: true})
    }
  }
  return formatTable(
    [
      {header: 'idle, volume of', value: row => row.size},
      {header: 'replica MiB', align: 'right', value: row => row.replica.toFixed(0)},
      {header: 'engine MiB', align: 'right', value: row => row.engine.toFixed(0)},
    ],
    rows,
  )
}

async function startTimes(): Promise<string> {
  const commands: Record<string, readonly string[]> = {
    'node, empty program': ['-e', '0'],
    'longhorn --version': [LONGHORN, '--version'],
    'longhorn version --client-only': [LONGHORN, 'version', '--client-only'],
    'longhorn --help': [LONGHORN, '--help'],
  }
  const times = new Map(Object.keys(commands).map(name => [name, [] as number[]]))
  for (let round = 0; round < STARTS; round++) {
    for (const [name, args] of Object.entries(commands)) {
      const start = performance.now()
      await execa(process.execPath, args)
      times.get(name)?.push(performance.now() - start)
    }
  }
  const base = median(times.get('node, empty program') ?? [])
  return formatTable(
    [
      {header: 'start', value: ([name]) => name},
      {header: 'median ms', align: 'right', value: ([, list]) => median(list).toFixed(0)},
      {header: 'times an empty program', align: 'right', value: ([, list]) => (median(list) / base).toFixed(2)},
    ],
    [...times],
  )
}
