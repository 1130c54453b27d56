// The data path against its yardstick: an engine with two replica processes over TCP and an NBD frontend, beside
// `nbdkit file` on one sparse file (C, unreplicated, buffered). Both serve at the same time and take turns job by job,
// so what else the machine does hits both. Ratios are of medians; above 1 means faster than the yardstick.
//
//   npm run bench -- data-path [--seconds N] [--rounds N] [--write-through] [--only PART|PART…]
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {parseArgs} from 'node:util'
import {execa} from 'execa'
import {Cleanup} from '../src/lib/cleanup.js'
import {formatTable} from '../src/cli/table.js'
import {median} from './support/median.js'
import {runFio, type FioJob, type FioResult} from './support/fio.js'
import {serveLonghorn, serveNbdkit, type Served} from './support/servers.js'

const SIZE_BYTES = 2 * 1024 ** 3

/** Comes first, once: the other jobs then find every block in place, on both sides. */
const FIRST_FILL: FioJob = {name: '1 MiB writes, first fill', rw: 'write', blockSize: '1m', depth: 8}
const JOBS: readonly FioJob[] = [
  {name: '1 MiB sequential write, depth 8', rw: 'write', blockSize: '1m', depth: 8},
  {name: '1 MiB sequential read, depth 8', rw: 'read', blockSize: '1m', depth: 8},
  {name: '4 KiB random write, depth 32', rw: 'randwrite', blockSize: '4k', depth: 32},
  {name: '4 KiB random read, depth 32', rw: 'randread', blockSize: '4k', depth: 32},
  {name: '4 KiB random write, depth 1', rw: 'randwrite', blockSize: '4k', depth: 1},
  {name: '4 KiB random read, depth 1', rw: 'randread', blockSize: '4k', depth: 1},
]

interface Measured {
  readonly result: FioResult
  /** Processor seconds of the serving processes, per million requests. */
  readonly cpuPerMillion: number
}

interface Row {
  readonly job: FioJob
  readonly yardstick: readonly Measured[]
  readonly ours: readonly Measured[]
}

const {values} = parseArgs({
  options: {
    seconds: {type: 'string', default: '4'},
    rounds: {type: 'string', default: '3'},
    'write-through': {type: 'boolean', default: false},
    only: {type: 'string'},
  },
})

const directory = await mkdtemp(join(tmpdir(), 'longhorn-bench-'))
try {
  await using undo = new Cleanup()
  const yardstick = undo.add(await serveNbdkit(directory, SIZE_BYTES))
  const ours = undo.add(await serveLonghorn(directory, SIZE_BYTES, 2, values['write-through'] ? ['--write-through'] : []))
  const rows: Row[] = [{job: FIRST_FILL, yardstick: [await measure(yardstick, FIRST_FILL)], ours: [await measure(ours, FIRST_FILL)]}]
  for (const job of JOBS.filter(one => values.only === undefined || values.only.split('|').some(part => one.name.includes(part)))) {
    const row = {job, yardstick: [] as Measured[], ours: [] as Measured[]}
    for (let round = 0; round < Number(values.rounds); round++) {
      row.yardstick.push(await measure(yardstick, job))
      row.ours.push(await measure(ours, job))
    }
    rows.push(row)
    console.error(`${job.name}: ${ratio(row).toFixed(2)}`)
  }
  console.log(table(rows))
} finally {
  await rm(directory, {recursive: true, force: true})
}

async function measure(served: Served, job: FioJob): Promise<Measured> {
  // What an earlier job left to write back would slow down whoever comes next.
  await execa('sync', ['--file-system', directory])
  const before = served.cpuSeconds()
  const result = await runFio(served.uri, job, job === FIRST_FILL ? undefined : Number(values.seconds), SIZE_BYTES)
  return {result, cpuPerMillion: ((served.cpuSeconds() - before) / result.requests) * 1e6}
}

function ratio({yardstick, ours}: Row): number {
  return median(ours.map(one => one.result.iops)) / median(yardstick.map(one => one.result.iops))
}

function table(rows: readonly Row[]): string {
  return formatTable<Row>(
    [
      {header: `job${values['write-through'] ? ' (--write-through)' : ''}`, value: row => row.job.name},
      {header: 'ratio', align: 'right', value: row => ratio(row).toFixed(2)},
      {header: 'nbdkit', align: 'right', value: row => speed(row.job, row.yardstick)},
      {header: 'longhorn', align: 'right', value: row => speed(row.job, row.ours)},
      {header: 'p99 nbdkit', align: 'right', value: row => `${median(row.yardstick.map(one => one.result.p99us)).toFixed(0)} us`},
      {header: 'p99 longhorn', align: 'right', value: row => `${median(row.ours.map(one => one.result.p99us)).toFixed(0)} us`},
      {header: 'cpu s/M nbdkit', align: 'right', value: row => median(row.yardstick.map(one => one.cpuPerMillion)).toFixed(1)},
      {header: 'cpu s/M longhorn', align: 'right', value: row => median(row.ours.map(one => one.cpuPerMillion)).toFixed(1)},
    ],
    rows,
  )
}

function speed(job: FioJob, measured: readonly Measured[]): string {
  if (job.blockSize === '4k') return `${(median(measured.map(one => one.result.iops)) / 1000).toFixed(1)}k IOPS`
  return `${(median(measured.map(one => one.result.bytesPerSecond)) / 1e6).toFixed(0)} MB/s`
}
