// One volume as people run it: replicas and an engine in processes of their own, on real files.
import {createHash} from 'node:crypto'
import {createReadStream} from 'node:fs'
import {readdir} from 'node:fs/promises'
import {join} from 'node:path'
import type {Test} from 'tap'
import {patient} from '../../support/daemons.js'
import {replicaSum} from '../../support/replica-image.js'
import {shortDir} from '../../support/short-dir.js'
import {until} from '../../support/until.js'
import {Daemon, LONGHORN} from './daemon.js'
import {attempt, tool} from './tool.js'

export interface EngineOptions {
  readonly frontend?: 'nbd' | 'blockdev' | 'iscsi'
  /** Of the NBD frontend. */
  readonly transport?: 'unix' | 'tcp'
  /** Where its control service listens; a free port when not given. */
  readonly listen?: string
  /** Which replicas it gets; all that run when not given. */
  readonly over?: readonly number[]
  readonly flags?: readonly string[]
}

let volumes = 0

export class LiveVolume {
  /** Tells the id of the test's process, so that what is left of one that was killed can be found. */
  readonly name = `peer-${process.pid}-${++volumes}`
  readonly folder: string
  readonly sizeBytes: number
  /** Where the replicas keep their files. */
  readonly directories: readonly string[]
  /** The replicas by their number; undefined: not running. */
  readonly #replicas: (Daemon | undefined)[] = []
  readonly #addresses: string[] = []
  readonly #started: Daemon[] = []
  #engine: Daemon | undefined
  /** Of the engine's control service. */
  #control = ''

  constructor(t: Test, {sizeBytes, replicas = 2, directories}: {sizeBytes: number; replicas?: number; directories?: readonly string[]}) {
    this.folder = shortDir(t)
    this.sizeBytes = sizeBytes
    this.directories = directories ?? Array.from({length: replicas}, (_, index) => join(this.folder, `replica-${index}`))
    t.teardown(() => this.killAll())
  }

  get engine(): Daemon {
    if (this.#engine === undefined) throw new Error(`no engine of ${this.name} was started`)
    return this.#engine
  }

  get control(): string {
    return this.#control.replace('tcp://', '')
  }

  /** Of a replica's control service. */
  address(index: number): string {
    return this.#addresses[index]!
  }

  replica(index: number): Daemon {
    const daemon = this.#replicas[index]
    if (daemon === undefined) throw new Error(`replica ${index} of ${this.name} does not run`)
    return daemon
  }

  /** Starts these replicas, or all. Each gets another address than before. */
  async startReplicas(indices: readonly number[] = [...this.directories.keys()]): Promise<void> {
    await Promise.all(
      indices.map(async index => {
        const daemon = this.#start(['replica', this.directories[index]!, '--size', `${this.sizeBytes}`, '--listen', '127.0.0.1:0'])
        this.#addresses[index] = (await daemon.ready())['control']!
        this.#replicas[index] = daemon
      }),
    )
  }

  /** Starts an engine, and gives what its frontend announces: a URI, or a device. */
  async startEngine({frontend = 'nbd', transport = 'unix', listen = '127.0.0.1:0', over, flags = []}: EngineOptions = {}): Promise<string> {
    const chosen = over ?? [...this.#replicas.keys()].filter(index => this.#replicas[index] !== undefined)
    const args = ['engine', this.name, '--size', `${this.sizeBytes}`, '--listen', listen, '--frontend', frontend, ...patient(flags)]
    if (frontend === 'nbd') args.push('--frontend-listen', transport === 'tcp' ? '127.0.0.1:0' : `unix:${join(this.folder, 'nbd')}`)
    if (frontend === 'iscsi') args.push('--frontend-listen', '127.0.0.1:0', '--iscsi-state-dir', join(this.folder, 'iscsi'))
    const engine = this.#start([...args, ...chosen.flatMap(index => ['--replica', this.#addresses[index]!])])
    const {control, endpoint} = await engine.ready()
    this.#engine = engine
    this.#control = control!
    return endpoint!
  }

  /** Has a new engine take the place of the running one, which has ended when this resolves. Gives for how long initiators had to wait, in milliseconds. */
  async upgradeEngine(flags: readonly string[] = []): Promise<number> {
    const before = this.engine
    const engine = this.#start(['engine', this.name, '--size', `${this.sizeBytes}`, '--listen', '127.0.0.1:0', '--upgrade', '--upgrade-from', this.control, ...patient(flags)])
    const {control} = await engine.ready()
    await before.ended()
    this.#engine = engine
    this.#control = control!
    return Number(engine.log.find(({msg}) => msg === 'took over from the running engine')?.['stoodStillMs'])
  }

  /** Everything from the beginning: replicas and an engine over them. */
  async start(options: EngineOptions = {}): Promise<string> {
    await this.startReplicas()
    return this.startEngine(options)
  }

  /** The orderly way: the engine first, then the replicas. */
  async stop(): Promise<void> {
    await this.engine.stop()
    await this.stopReplicas()
  }

  async stopReplicas(): Promise<void> {
    await Promise.all([...this.#replicas.keys()].map(index => this.stopReplica(index)))
  }

  async stopReplica(index: number): Promise<void> {
    await this.#replicas[index]?.stop()
    this.#replicas[index] = undefined
  }

  async killReplica(index: number): Promise<void> {
    await this.replica(index).kill()
    this.#replicas[index] = undefined
  }

  /** `kill -9` for everything at once. */
  async killAll(): Promise<void> {
    await Promise.all(this.#started.splice(0).map(daemon => daemon.kill()))
    this.#replicas.length = 0
  }

  /** What `longhorn replica ls` says of each replica. */
  async modes(): Promise<string[]> {
    const {replicas} = JSON.parse(await longhorn('replica', 'ls', this.name, '--engine', this.#control)) as {replicas: {address: string; mode: string}[]}
    return this.#addresses.flatMap(address => replicas.find(replica => replica.address === address)?.mode ?? [])
  }

  /** Until all replicas are up to date: after a crash they are compared, while the volume is being used. */
  async resynced(): Promise<void> {
    await until(async () => (await this.modes()).every(mode => mode === 'RW'), 'all replicas are up to date', 60_000)
  }

  /** SHA-256 of what each replica holds, served by an engine of its own. Nothing of the volume may run, and nothing does afterwards. */
  async servedByEach(): Promise<string[]> {
    const sums: string[] = []
    await this.startReplicas()
    for (const index of this.directories.keys()) {
      sums.push(await this.sum(await this.startEngine({over: [index]})))
      await this.engine.stop()
    }
    await this.stopReplicas()
    return sums
  }

  /** SHA-256 of what is served. */
  async sum(uri: string): Promise<string> {
    return sumOfFile(await this.copyOut(uri, 'copy'))
  }

  /** Copies what is served to a file in this volume's folder, and gives its path. */
  async copyOut(uri: string, name: string): Promise<string> {
    const file = join(this.folder, name)
    await tool(['truncate', '-s', '0', file])
    await tool(['truncate', '-s', `${this.sizeBytes}`, file])
    await tool(['nbdcopy', uri, file])
    return file
  }

  /** SHA-256 of what each replica holds. */
  async sumsOfReplicas(): Promise<string[]> {
    return Promise.all(this.directories.map(replicaSum))
  }

  #start(args: readonly string[]): Daemon {
    const daemon = new Daemon(args)
    this.#started.push(daemon)
    return daemon
  }
}

export async function sumOfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, {highWaterMark: 1024 * 1024})) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

/** SHA-256 of each file of a folder that `wanted` chooses, by name. */
export async function sumsOfFiles(folder: string, wanted: (name: string) => boolean): Promise<Record<string, string>> {
  const names = (await readdir(folder)).filter(wanted).sort()
  return Object.fromEntries(await Promise.all(names.map(async name => [name, await sumOfFile(join(folder, name))] as const)))
}

/** Runs a command of the command line with --json, and gives its output. */
export function longhorn(...args: readonly string[]): Promise<string> {
  return tool([process.execPath, LONGHORN, ...args, '--json'])
}

/** As longhorn(), but an error is a result. */
export function tryLonghorn(...args: readonly string[]): ReturnType<typeof attempt> {
  return attempt([process.execPath, LONGHORN, ...args, '--json'])
}
