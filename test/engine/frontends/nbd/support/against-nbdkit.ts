// What the NBD frontend alone costs: it serves memory beside `nbdkit memory`, on unix sockets, and fio takes turns with both, so
// what else the machine does hits both. The ratio is of the best rounds; above 1 means faster than nbdkit.
//
//   node dist/test/engine/frontends/nbd/support/against-nbdkit.js [SECONDS [ROUNDS]]
import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import {runFio, type FioJob} from '../../../../../bench/support/fio.js'
import {Served} from '../../../../../bench/support/servers.js'
import {formatTable} from '../../../../../src/cli/table.js'

const SIZE_BYTES = 2 * 1024 ** 3
const FIO_BYTES = 1024 ** 3
const JOBS: readonly FioJob[] = (
  [
    ['randread', '4k', 32],
    ['randwrite', '4k', 32],
    ['randread', '4k', 1],
    ['randwrite', '4k', 1],
    ['read', '1m', 8],
    ['write', '1m', 8],
  ] as const
).map(([rw, blockSize, depth]) => ({name: `${rw} ${blockSize}, depth ${depth}`, rw, blockSize, depth}))

interface Best {
  readonly iops: number
  readonly p99us: number
  /** Processor time of the server, in microseconds per request. */
  readonly cpuUs: number
}

const [seconds = '2', rounds = '3'] = process.argv.slice(2)
const folder = await mkdtemp(join(tmpdir(), 'lh-'))
const theirs = serving('nbdkit', ['-f', '-U', join(folder, 'nbdkit'), 'memory', '2g'], join(folder, 'nbdkit'))
const script = fileURLToPath(new URL('memory-server.js', import.meta.url))
const ours = serving(process.execPath, [script, `unix:${join(folder, 'ours')}`, String(SIZE_BYTES)], join(folder, 'ours'))
try {
  await new Promise(resolve => setTimeout(resolve, 3000))
  const rows: {job: FioJob; theirs: Best; ours: Best}[] = []
  for (const job of JOBS) {
    const their: Best[] = []
    const our: Best[] = []
    for (let round = 0; round < Number(rounds); round++) {
      their.push(await measure(theirs, job))
      our.push(await measure(ours, job))
    }
    rows.push({job, theirs: best(their), ours: best(our)})
  }
  console.log(
    formatTable(
      [
        {header: 'job', value: row => row.job.name},
        {header: 'ratio', align: 'right', value: row => (row.ours.iops / row.theirs.iops).toFixed(2)},
        {header: 'nbdkit', align: 'right', value: row => describe(row.theirs)},
        {header: 'longhorn', align: 'right', value: row => describe(row.ours)},
      ],
      rows,
    ),
  )
} finally {
  await Promise.all([ours.close(), theirs.close()])
  await rm(folder, {recursive: true, force: true})
}

function serving(program: string, args: readonly string[], socket: string): Served {
  const child: ChildProcess = spawn(program, args, {stdio: ['pipe', 'ignore', 'inherit']})
  void once(child, 'error').then(([error]) => Promise.reject(error as Error))
  return new Served(`nbd+unix:///?socket=${socket}`, [child])
}

async function measure(served: Served, job: FioJob): Promise<Best> {
  const before = served.cpuSeconds()
  const {iops, p99us, requests} = await runFio(served.uri, job, Number(seconds), FIO_BYTES)
  return {iops, p99us, cpuUs: ((served.cpuSeconds() - before) / requests) * 1e6}
}

/** The best of each figure: what others do on the machine only ever makes them worse. */
function best(all: readonly Best[]): Best {
  return {
    iops: Math.max(...all.map(one => one.iops)),
    p99us: Math.min(...all.map(one => one.p99us)),
    cpuUs: Math.min(...all.map(one => one.cpuUs)),
  }
}

function describe({iops, p99us, cpuUs}: Best): string {
  return `${iops.toFixed(0)} IOPS, p99 ${p99us.toFixed(0)} us, cpu ${cpuUs.toFixed(1)} us`
}
