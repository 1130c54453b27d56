// The iSCSI target over two replica processes, beside Debian's tgt on one plain, unreplicated file, in the same run and
// taking turns. Reads with libiscsi's iscsi-perf, writes with qemu-img bench. Ratios are of medians.
//
//   npm run bench -- iscsi [--seconds N] [--rounds N]
import {spawn} from 'node:child_process'
import {mkdtemp, rm, truncate, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import {parseArgs} from 'node:util'
import {execa} from 'execa'
import {formatTable} from '../src/cli/table.js'
import {Cleanup} from '../src/lib/cleanup.js'
import {median} from './support/median.js'
import {Served, serveLonghorn} from './support/servers.js'

const SIZE_BYTES = 1024 ** 3
const BLOCK = 512
const TGT_IQN = 'iqn.2020-01.example:bench'
/** tgtd's own control socket and port, so that a tgtd of the machine is left alone. */
const TGT_CONTROL = '77'
const TGT_PORT = 13260

interface Job {
  readonly name: string
  readonly unit: 'IOPS' | 'MB/s'
  run(url: string, seconds: number): Promise<number>
}

const JOBS: readonly Job[] = [
  {name: '256 KiB sequential write, depth 8 (qemu-img bench)', unit: 'MB/s', run: url => qemuBench(url, 256 * 1024, 8, 2048)},
  {name: '4 KiB write, depth 32 (qemu-img bench)', unit: 'IOPS', run: async url => ((await qemuBench(url, 4096, 32, 60_000)) * 1e6) / 4096},
  {name: '4 KiB random read, depth 32 (iscsi-perf)', unit: 'IOPS', run: (url, seconds) => iscsiPerf(url, 4096, seconds, true)},
  {
    name: '256 KiB sequential read, depth 32 (iscsi-perf)',
    unit: 'MB/s',
    run: async (url, seconds) => ((await iscsiPerf(url, 256 * 1024, seconds, false)) * 256 * 1024) / 1e6,
  },
]

const {values} = parseArgs({options: {seconds: {type: 'string', default: '4'}, rounds: {type: 'string', default: '3'}}})
// spawn() says nothing but ENOENT.
if ((await execa('tgtadm', ['--version'], {reject: false})).failed) {
  console.error('left out: there is nothing to compare with. apt-get install tgt')
  process.exit(0)
}
const directory = await mkdtemp(join(tmpdir(), 'longhorn-bench-'))
try {
  await using undo = new Cleanup()
  const tgt = undo.add(await serveTgt(directory))
  const ours = undo.add(await serveLonghorn(directory, SIZE_BYTES, 2, ['--iscsi-state-dir', directory], ['iscsi', '127.0.0.1:0']))
  const rows: {job: Job; tgt: number[]; ours: number[]}[] = []
  for (const job of JOBS) {
    const row = {job, tgt: [] as number[], ours: [] as number[]}
    for (let round = 0; round < Number(values.rounds); round++) {
      row.tgt.push(await job.run(tgt.uri, Number(values.seconds)))
      row.ours.push(await job.run(ours.uri, Number(values.seconds)))
    }
    rows.push(row)
  }
  console.log(
    formatTable(
      [
        {header: 'job', value: row => row.job.name},
        {header: 'ratio', align: 'right', value: row => (median(row.ours) / median(row.tgt)).toFixed(2)},
        {header: 'tgt', align: 'right', value: row => speed(row.job, row.tgt)},
        {header: 'longhorn', align: 'right', value: row => speed(row.job, row.ours)},
      ],
      rows,
    ),
  )
} finally {
  await rm(directory, {recursive: true, force: true})
}

function speed({unit}: Job, measured: readonly number[]): string {
  const value = median(measured)
  return unit === 'IOPS' ? `${(value / 1000).toFixed(1)}k IOPS` : `${value.toFixed(0)} MB/s`
}

/** Requests per second. iscsi-perf prints an average on its last line. */
async function iscsiPerf(url: string, bytes: number, seconds: number, random: boolean): Promise<number> {
  const args = ['-m', '32', '-b', `${bytes / BLOCK}`, '-t', `${seconds}`, ...(random ? ['-r'] : []), url]
  const {all} = await execa('iscsi-perf', args, {all: true, reject: false, timeout: (seconds + 30) * 1000})
  const averages = [...all.matchAll(/iops average (\d+)/g)]
  const last = averages.at(-1)?.[1]
  if (last === undefined) throw new Error(`iscsi-perf said: ${all.slice(-500)}`)
  return Number(last)
}

/** MB/s of `count` writes. */
async function qemuBench(url: string, bytes: number, depth: number, count: number): Promise<number> {
  const target = `${url}`
  const {stdout} = await execa('qemu-img', ['bench', '-w', '-f', 'raw', '-t', 'none', '-c', `${count}`, '-d', `${depth}`, '-s', `${bytes}`, target])
  const seconds = Number(/Run completed in ([\d.]+) seconds/.exec(stdout)?.[1])
  return (count * bytes) / seconds / 1e6
}

async function serveTgt(folder: string): Promise<Served> {
  const file = join(folder, 'tgt.img')
  await writeFile(file, '')
  await truncate(file, SIZE_BYTES)
  const child = spawn('tgtd', ['-f', '-C', TGT_CONTROL, '--iscsi', `portal=127.0.0.1:${TGT_PORT}`], {stdio: 'ignore'})
  const admin = (...args: string[]) => execa('tgtadm', ['-C', TGT_CONTROL, '--lld', 'iscsi', ...args])
  for (let attempt = 0; ; attempt++) {
    try {
      await admin('--op', 'new', '--mode', 'target', '--tid', '1', '-T', TGT_IQN)
      break
    } catch (error) {
      if (attempt === 50) throw error
      await delay(100)
    }
  }
  await admin('--op', 'new', '--mode', 'logicalunit', '--tid', '1', '--lun', '1', '-b', file)
  await admin('--op', 'bind', '--mode', 'target', '--tid', '1', '-I', 'ALL')
  // It takes no notice of SIGTERM while it has targets.
  return new Served(`iscsi://127.0.0.1:${TGT_PORT}/${TGT_IQN}/1`, [child], 'SIGKILL')
}
