// A new engine takes the place of a running one, under a load that knows what it has been promised.
import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {existsSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import t, {type Test} from 'tap'
import {parseAddress} from '../../src/lib/address.js'
import {connect} from '../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition} from '../../src/protocol/proto/generated/controller.js'
import {seededRandom} from '../replica/support/random.js'
import {startDaemon, startReplica, type Daemon} from '../support/daemons.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {DEATHS} from './support/dying-successor.js'
import {VerifiedLoad} from './support/verified-load.js'

const SIZE_BYTES = 32 * 1024 * 1024
const REPLICAS = 2
const LONGHORN = fileURLToPath(new URL('../../../bin/longhorn', import.meta.url))
const SUCCESSOR = fileURLToPath(new URL('support/dying-successor.js', import.meta.url))

class System {
  readonly replicas: {daemon: Daemon; directory: string; address: string}[] = []
  engine!: Daemon
  control = ''
  readonly socket: string

  private constructor(
    readonly t: Test,
    readonly folder: string,
    readonly volume: string,
  ) {
    this.socket = join(folder, 'vol.sock')
  }

  static async start(t: Test, volume: string): Promise<System> {
    const system = new System(t, shortDir(t), volume)
    for (let index = 0; index < REPLICAS; index++) {
      const directory = join(system.folder, `replica-${index}`)
      system.replicas.push({...(await startReplica(t, directory, SIZE_BYTES)), directory})
    }
    await system.startEngine()
    return system
  }

  /** Until what the last crash may have made different has been compared. */
  async compared(): Promise<void> {
    const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: parseAddress(this.control)})
    try {
      await until(async () => (await rpc.replicaRebuildList({})).rebuilds.every(({state}) => state !== 'in_progress'), 'nothing is being rebuilt', 60_000)
    } finally {
      rpc.destroy()
    }
  }

  async startEngine(): Promise<void> {
    const {daemon, ready} = await startDaemon(this.t, [...this.engineFlags, ...this.#frontend()])
    this.engine = daemon
    this.control = ready.control!
  }

  /** Has a new engine take over; resolves when the old one has ended. */
  async upgrade(listen = '127.0.0.1:0', from = ['--upgrade-from', this.control.replace('tcp://', '')]): Promise<number> {
    const before = this.engine
    const {daemon, ready} = await startDaemon(this.t, ['engine', this.volume, '--size', `${SIZE_BYTES}`, '--listen', listen, '--engine-replica-timeout', '60', '--upgrade', ...from])
    this.engine = daemon
    this.control = ready.control!
    this.t.same(await before.exited, [0, null], 'the old engine has ended')
    return stoodStillMs(daemon)
  }

  /** Starts a new engine that can also do without the old one; resolves when it serves. */
  async begin(): Promise<void> {
    const all = [...this.#frontend(), '--upgrade', '--upgrade-from', this.control.replace('tcp://', '')]
    const {daemon, ready} = await startDaemon(this.t, [...this.engineFlags, ...all])
    this.engine = daemon
    this.control = ready.control!
  }

  #frontend(): string[] {
    return [...this.replicas.flatMap(({address}) => ['--replica', address]), '--frontend', 'socket', '--frontend-listen', `unix:${this.socket}`]
  }

  get engineFlags(): string[] {
    return ['engine', this.volume, '--size', `${SIZE_BYTES}`, '--listen', '127.0.0.1:0', '--engine-replica-timeout', '60']
  }

  async endAll(): Promise<void> {
    if (!this.t.same(await this.engine.end('SIGTERM'), [0, null], 'the engine ends in order')) this.t.comment(this.engine.lastLines)
    for (const {daemon} of this.replicas) await daemon.end('SIGTERM')
  }
}

function stoodStillMs(engine: Daemon): number {
  const line = engine.stderr.find(text => text.includes('took over from the running engine'))
  return Number(/"stoodStillMs":([\d.]+)/.exec(line ?? '')?.[1])
}

t.test('twenty upgrades in a row, under load: no error, no lost write, the connection stays', async t => {
  const system = await System.start(t, 'upgraded')
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t))
  await load.connect(system.socket)
  load.start(32)
  const times: number[] = []
  for (let round = 0; round < 20; round++) {
    await load.progress(200)
    times.push(await system.upgrade())
  }
  await load.progress(200)
  await load.stop()
  t.comment(`stood still for ms: ${times.join(' ')}; longest silence ${load.longestSilenceMs.toFixed(1)} ms`)
  t.equal(load.errors, 0, 'no errors')
  await load.verifyAll()
  t.same(load.problems, [])
  load.disconnect()
  await system.endAll()
  const [first, second] = system.replicas.map(({directory}) => readFileSync(join(directory, 'volume-head-000.img')))
  t.ok(first!.equals(second!), 'the replicas are the same')
  load.verifyImage(first!, 'on disk')
  t.same(load.problems, [])
  t.notOk(existsSync(system.socket), 'the last engine has removed the socket of the first')
})

t.test('a new engine that dies at any step leaves the old one to go on, and clients connected', async t => {
  const system = await System.start(t, 'upgraded')
  const load = new VerifiedLoad(SIZE_BYTES, seededRandom(t))
  await load.connect(system.socket)
  load.start(32)
  for (const [index, step] of [...DEATHS, ...DEATHS].entries()) {
    await load.progress(100)
    const {signal} = await ended(spawn(process.execPath, [SUCCESSOR, system.control, system.volume, step, join(system.folder, `successor-${index}`)], {stdio: ['ignore', 'inherit', 'inherit']}))
    t.equal(signal, 'SIGKILL', `it died at step "${step}"`)
    await load.progress(100)
  }
  t.ok(system.engine.running)
  await system.upgrade()
  await load.progress(100)
  await load.stop()
  t.equal(load.errors, 0, 'no errors')
  await load.verifyAll()
  t.same(load.problems, [])
  load.disconnect()
  await system.endAll()
})

t.test('an old engine that dies while it hands over: the new one goes on, or starts as after a crash; nothing is lost', async t => {
  const random = seededRandom(t)
  const system = await System.start(t, 'upgraded')
  const load = new VerifiedLoad(SIZE_BYTES, random)
  for (let round = 0; round < 6; round++) {
    // An upgrade waits for no rebuild.
    await system.compared()
    await load.connect(system.socket)
    load.start(32)
    await load.progress(100)
    const before = system.engine
    const handingOver = before.says('handing over to another engine')
    const next = system.begin()
    await handingOver
    if (round % 2 === 1) await delay(random.below(10))
    before.signal('SIGKILL')
    await next
    t.comment(system.engine.stderr.find(line => /took over|as after a crash|no engine/.test(line))?.replace(/.*"msg":/, ''))
    load.disconnect()
    await load.stop()
    await load.connect(system.socket)
    await load.verifyAll()
    t.same(load.problems, [], 'all that was acknowledged is there')
    load.disconnect()
  }
  await system.endAll()
})

t.test('what cannot be: another volume, other replicas, another frontend', async t => {
  const system = await System.start(t, 'upgraded')
  const from = ['--upgrade', '--upgrade-from', system.control.replace('tcp://', '')]
  const {address: other} = await startReplica(t, join(system.folder, 'other'), SIZE_BYTES)
  await refused(t, ['engine', 'another', '--size', `${SIZE_BYTES}`, '--listen', '127.0.0.1:0', ...from], /another|upgraded/)
  await refused(t, [...system.engineFlags, ...from, '--replica', other], /is not one of the running engine's/)
  await refused(t, [...system.engineFlags, ...from, '--frontend', 'nbd'], /serves frontend socket, not nbd/)
  t.ok(system.engine.running)
  const {control} = system
  await system.upgrade(control.replace('tcp://', ''), [])
  t.equal(system.control, control, 'the same port')
  await system.upgrade('127.0.0.1:0', [])
  t.not(system.control, control, 'found where it was written down')
  t.same(await system.engine.end('SIGHUP'), [129, null], 'SIGHUP ends an engine at once')
  t.ok(existsSync(system.socket), 'and it closes nothing')
  await system.startEngine()
  await system.endAll()
})

async function ended(child: ChildProcess): Promise<{signal: NodeJS.Signals | null}> {
  const [, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
  return {signal}
}

async function refused(t: Test, args: readonly string[], why: RegExp): Promise<void> {
  const child = spawn(process.execPath, [LONGHORN, ...args], {stdio: ['ignore', 'ignore', 'pipe'], env: {PATH: process.env.PATH}})
  let text = ''
  child.stderr.setEncoding('utf8').on('data', chunk => (text += chunk))
  const [code] = (await once(child, 'close')) as [number | null]
  t.not(code, 0)
  t.match(text, why)
}
