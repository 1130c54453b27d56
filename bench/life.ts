// What happens to a volume over its life, and what it costs those who use it meanwhile: snapshots, purge, rebuild, many layers.
// Every figure is a ratio to something measured in the same run, or a time that writers wait.
//
//   npm run bench -- life [--size 1g] [--only snapshots|purge|rebuild|layers] [--rounds 3]
import type {ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {mkdir, mkdtemp, readdir, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {createInterface} from 'node:readline'
import {setTimeout as sleep} from 'node:timers/promises'
import {parseArgs} from 'node:util'
import {execa} from 'execa'
import {formatTable} from '../src/cli/table.js'
import {parseAddress} from '../src/lib/address.js'
import {parseSize} from '../src/lib/sizes.js'
import {connect, type RpcClient} from '../src/protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../src/protocol/proto/generated/controller.js'
import {ReplicaServiceDefinition} from '../src/protocol/proto/generated/replica.js'
import {SyncAgentServiceDefinition} from '../src/protocol/proto/generated/sync-agent.js'
import {runFio, type FioJob} from './support/fio.js'
import {median} from './support/median.js'
import {startLonghorn} from './support/servers.js'

const WRITES: FioJob = {name: '4 KiB random write, depth 32', rw: 'randwrite', blockSize: '4k', depth: 32}
const READS: FioJob = {name: '4 KiB random read, depth 32', rw: 'randread', blockSize: '4k', depth: 32}
const FILL: FioJob = {name: 'fill', rw: 'write', blockSize: '1m', depth: 8}
const SECONDS = 5
const READ_ROUNDS = 7
const READ_SECONDS = 3

interface Row {
  readonly what: string
  readonly value: string
  readonly aim: string
}

const {values} = parseArgs({options: {size: {type: 'string', default: '1g'}, only: {type: 'string'}, rounds: {type: 'string', default: '3'}}})
const sizeBytes = parseSize(values.size)
/** Of what is copied as a whole. */
const rounds = Number(values.rounds)
/** Merging that many layers takes longer than the writes beside it. */
const MERGED_LAYERS = 8

/** Every other MiB, so that no layer hides another one. */
function stripes(odd: boolean): FioJob {
  return {...FILL, name: 'stripes', more: ['--zonemode=strided', '--zonesize=1m', '--zonerange=2m', `--io_size=${sizeBytes / 2 - 1024 ** 2}`, ...(odd ? ['--offset=1m'] : [])]}
}

/** Replicas and an engine with an NBD frontend, each a process. */
class Rig {
  readonly stoodStillMs: number[] = []
  readonly #processes = new Map<string, ChildProcess>()
  #rpc: RpcClient<typeof ControllerServiceDefinition> | undefined
  uri = ''

  constructor(readonly directory: string) {}

  get rpc(): RpcClient<typeof ControllerServiceDefinition> {
    return this.#rpc!
  }

  folder(name: string): string {
    return join(this.directory, name)
  }

  async replica(name: string): Promise<string> {
    const {child, ready} = await startLonghorn(['replica', this.folder(name), '--size', `${sizeBytes}`, '--listen', '127.0.0.1:0'])
    this.#processes.set(name, child)
    return ready.control!
  }

  async engine(replicas: readonly string[]): Promise<void> {
    const flags = replicas.flatMap(address => ['--replica', address])
    const listen = ['--listen', '127.0.0.1:0', '--frontend', 'nbd', '--frontend-listen', `unix:${this.directory}/engine.sock`]
    const {child, ready} = await startLonghorn(['engine', 'bench', '--size', `${sizeBytes}`, ...listen, ...flags])
    createInterface({input: child.stderr!}).on('line', line => {
      const ms = /"stoodStillMs":(\d+)/.exec(line)?.[1]
      if (ms !== undefined) this.stoodStillMs.push(Number(ms))
    })
    this.#processes.set('engine', child)
    this.uri = ready.endpoint!
    this.#rpc?.destroy()
    this.#rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: parseAddress(ready.control!), timeoutMs: 600_000})
  }

  async fio(job: FioJob, seconds: number | undefined): Promise<number> {
    await execa('sync', ['--file-system', this.directory])
    return (await runFio(this.uri, job, seconds, sizeBytes)).iops
  }

  async end(name: string, signal: NodeJS.Signals): Promise<void> {
    const child = this.#processes.get(name)!
    this.#processes.delete(name)
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }

  /** Takes a replica in and waits until it is up to date; the seconds that took. */
  async add(address: string): Promise<number> {
    const before = performance.now()
    await this.rpc.replicaAdd({address, bytesPerSecond: 0n})
    await this.rpc.replicaVerifyRebuild({address, instanceName: ''})
    return (performance.now() - before) / 1000
  }

  async close(): Promise<void> {
    this.#rpc?.destroy()
    for (const name of [...this.#processes.keys()].reverse()) await this.end(name, 'SIGTERM')
  }
}

async function withRig(work: (rig: Rig) => Promise<Row[]>): Promise<Row[]> {
  const directory = await mkdtemp(join(tmpdir(), 'longhorn-life-'))
  const rig = new Rig(directory)
  try {
    return await work(rig)
  } finally {
    await rig.close()
    await rm(directory, {recursive: true, force: true})
  }
}

async function twoReplicas(rig: Rig): Promise<string[]> {
  const addresses = [await rig.replica('a'), await rig.replica('b')]
  await rig.engine(addresses)
  await rig.fio(FILL, undefined)
  return addresses
}

async function snapshots(rig: Rig): Promise<Row[]> {
  await twoReplicas(rig)
  const load = rig.fio(WRITES, SECONDS * 2)
  await sleep(1500)
  for (let count = 0; count < 40; count++) {
    await rig.rpc.volumeSnapshot({name: `s${count}`, labels: new Map(), freezeFilesystem: false})
    await sleep(100)
  }
  await load
  const sorted = [...rig.stoodStillMs].sort((a, b) => a - b)
  return [{what: 'snapshot under random writes at depth 32: writers stand still, p99', value: `${sorted[Math.ceil(sorted.length * 0.99) - 1]} ms`, aim: '< 20 ms'}]
}

async function purge(rig: Rig): Promise<Row[]> {
  const addresses = await twoReplicas(rig)
  const agents = addresses.map(text => {
    const address = parseAddress(text)
    if (address.kind !== 'tcp') throw new Error('a replica listens on TCP')
    return connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...address, port: address.port + 2}})
  })
  const names = Array.from({length: MERGED_LAYERS}, (_, index) => `s${index}`)
  for (const [index, name] of names.entries()) {
    await rig.rpc.volumeSnapshot({name, labels: new Map(), freezeFilesystem: false})
    await rig.fio(stripes(index % 2 === 1), undefined)
  }
  await rig.rpc.volumeSnapshot({name: 'kept', labels: new Map(), freezeFilesystem: false})
  // What is measured is not how a new head grows.
  await rig.fio(FILL, undefined)
  const alone = await rig.fio(WRITES, SECONDS)
  for (const text of addresses) {
    const replica = connect(ReplicaServiceDefinition, {peer: 'replica', address: parseAddress(text)})
    for (const name of names) await replica.diskMarkAsRemoved({name})
    replica.destroy()
  }
  await execa('sync', ['--file-system', rig.directory])
  const purging = async (): Promise<boolean> => (await Promise.all(agents.map(agent => agent.snapshotPurgeStatus()))).some(({isPurging}) => isPurging)
  await Promise.all(agents.map(agent => agent.snapshotPurge()))
  const during = (await runFio(rig.uri, WRITES, SECONDS, sizeBytes)).iops
  const running = await purging()
  while (await purging()) await sleep(200)
  for (const agent of agents) agent.destroy()
  return [{what: `random writes while purging${running ? '' : ' (it ended before)'}`, value: (during / alone).toFixed(2), aim: '>= 0.70'}]
}

async function rebuild(rig: Rig): Promise<Row[]> {
  const [, b] = await twoReplicas(rig)
  await execa('sync')
  const copies: number[] = []
  const full: number[] = []
  // In turns: many disks are fast for some gigabytes and slow afterwards.
  for (let round = 0; round < rounds; round++) {
    copies.push(await copySeconds(rig))
    const address = await rig.replica(`full-${round}`)
    await execa('sync')
    full.push(await rig.add(address))
    await rig.rpc.replicaDelete({address, instanceName: ''})
    await rig.end(`full-${round}`, 'SIGTERM')
    await rm(rig.folder(`full-${round}`), {recursive: true})
  }
  await execa('sync')
  await rig.end('b', 'SIGKILL')
  await rig.rpc.replicaDelete({address: b!, instanceName: ''}).catch(() => undefined)
  return [
    {what: 'rebuild with verification, rate beside cp --sparse and sync', value: `${(median(copies) / median(full)).toFixed(2)} (${median(copies).toFixed(1)} s / ${median(full).toFixed(1)} s)`, aim: '>= 0.70'},
    ...(await returning(rig, median(full))),
    ...(await underLoad(rig)),
  ]
}

async function copySeconds(rig: Rig): Promise<number> {
  const to = rig.folder('copy')
  await mkdir(to)
  const files = (await readdir(rig.folder('a'))).filter(name => name.endsWith('.img')).map(name => join(rig.folder('a'), name))
  const before = performance.now()
  await execa('cp', ['--sparse=always', ...files, to])
  // A rebuilt replica is on the disk.
  await execa('sync', ['--data', ...(await readdir(to)).map(name => join(to, name))])
  const seconds = (performance.now() - before) / 1000
  await rm(to, {recursive: true})
  return seconds
}

/** One that was away while one percent was written. */
async function returning(rig: Rig, fullSeconds: number): Promise<Row[]> {
  let address = await rig.replica('c')
  await rig.add(address)
  const seconds: number[] = []
  for (let round = 0; round < rounds; round++) {
    // What the rebuild has left behind is being merged.
    await sleep(3000)
    await rig.end('c', 'SIGKILL')
    await sleep(500)
    await runFio(rig.uri, FILL, undefined, Math.floor(sizeBytes / 100 / 1024 ** 2) * 1024 ** 2)
    await rig.rpc.replicaList({})
    address = await rig.replica('c')
    await execa('sync')
    seconds.push(await rig.add(address))
  }
  await rig.rpc.replicaDelete({address, instanceName: ''})
  await rig.end('c', 'SIGTERM')
  const middle = median(seconds)
  return [{what: 'rebuild of a replica that missed 1 %, time beside a full one', value: `${(middle / fullSeconds).toFixed(3)} (${middle.toFixed(2)} s)`, aim: '< 0.05'}]
}

/** Beside the same two replicas when both are up to date: a second one costs something by itself. */
async function underLoad(rig: Rig): Promise<Row[]> {
  const address = await rig.replica('d')
  await rig.rpc.replicaAdd({address, bytesPerSecond: 0n})
  const during = await rig.fio(WRITES, SECONDS)
  const {rebuilds} = await rig.rpc.replicaRebuildList({})
  const running = rebuilds.some(({state}) => state === 'in_progress')
  await rig.rpc.replicaVerifyRebuild({address, instanceName: ''})
  const alone = await rig.fio(WRITES, SECONDS)
  return [{what: `random writes while rebuilding${running ? '' : ' (it ended before)'}`, value: (during / alone).toFixed(2), aim: '>= 0.70'}]
}

/** Beside a volume of one layer that takes turns with it: what else the machine does concerns both. */
async function layers(rig: Rig): Promise<Row[]> {
  return withRig(async plain => {
    for (const each of [rig, plain]) {
      await each.engine([await each.replica('a')])
      await each.fio(FILL, undefined)
    }
    const rows: Row[] = []
    let count = 1
    for (const wanted of [100, 1000]) {
      await addLayers(rig, count, wanted)
      count = wanted
      const layered: number[] = []
      const alone: number[] = []
      for (let round = 0; round < READ_ROUNDS; round++) {
        alone.push(await plain.fio(READS, READ_SECONDS))
        layered.push(await rig.fio(READS, READ_SECONDS))
      }
      const longerMs = (await reopenMs(rig)) - (await reopenMs(plain))
      rows.push(
        {what: `random reads at depth 32 with ${wanted} layers, beside one`, value: (median(layered) / median(alone)).toFixed(2), aim: '>= 0.90'},
        {what: `start of a replica and an engine with ${wanted} layers, longer than with one by`, value: `${Math.round(longerMs)} ms`, aim: ''},
      )
    }
    return rows
  })
}

/** Snapshots, taken while it is written to, so that each layer holds something. */
async function addLayers(rig: Rig, from: number, to: number): Promise<void> {
  for (let count = from; count < to; ) {
    let writing = true
    const load = runFio(rig.uri, {...WRITES, depth: 4}, 2 * SECONDS, sizeBytes).finally(() => (writing = false))
    await sleep(1000)
    for (; writing && count < to; count++) await rig.rpc.volumeSnapshot({name: `s${count}`, labels: new Map(), freezeFilesystem: false})
    await load
  }
}

/** Replica and engine, from the start of their processes until they serve. */
async function reopenMs(rig: Rig): Promise<number> {
  for (const name of ['engine', 'a']) await rig.end(name, 'SIGTERM')
  const before = performance.now()
  await rig.engine([await rig.replica('a')])
  return performance.now() - before
}

const parts = {snapshots, purge, rebuild, layers}
const rows: Row[] = []
for (const [name, part] of Object.entries(parts)) {
  if (values.only !== undefined && !values.only.split('|').includes(name)) continue
  console.error(name)
  rows.push(...(await withRig(part)))
}
console.log(
  formatTable<Row>(
    [
      {header: 'what', value: row => row.what},
      {header: 'measured', align: 'right', value: row => row.value},
      {header: 'aim', align: 'right', value: row => row.aim},
    ],
    rows,
  ),
)
