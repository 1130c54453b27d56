// An engine that is started wrongly says so, and nothing has been changed anywhere.
import {existsSync, readFileSync, rmSync, writeFileSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {formatAddress, type TcpAddress} from '../../src/lib/address.js'
import {Listener} from '../../src/lib/net/listener.js'
import {closeFd} from '../../src/lib/net/socket-calls.js'
import {startEngineServer, type EngineServer, type EngineServerOptions} from '../../src/engine/engine-server.js'
import {FRAME} from '../../src/protocol/frame.js'
import {directoryState} from '../support/directory-state.js'
import {FramePeer} from '../support/frames.js'
import {read, write} from '../support/request.js'
import {shortDir} from '../support/short-dir.js'
import {dial} from '../support/sockets.js'
import {until} from '../support/until.js'
import {memoryLog} from './support/fake-replicas.js'
import {engineOptions, LOOPBACK, runEngine, runReplica, runReplicas, SIZE_BYTES, type RunningReplica} from './support/running.js'

interface Rig {
  readonly folder: string
  readonly replicas: RunningReplica[]
}

/** Two replicas with something in them, clean and closed. */
async function rig(t: Test, count = 2): Promise<Rig> {
  const folder = shortDir(t)
  const replicas = await runReplicas(t, folder, count)
  const engine = await startEngineServer(engineOptions(replicas))
  await write(engine.engine.volume, 4096, Buffer.alloc(8192, 7))
  await engine.close()
  return {folder, replicas}
}

/** The start fails as described, no replica's files have changed, and with the right options it works. */
async function refused(t: Test, {replicas}: Rig, options: EngineServerOptions, error: {code: string; message?: RegExp}): Promise<void> {
  const states = replicas.map(({directory}) => directoryState(directory))
  const descriptors = await openDescriptors()
  const started = performance.now()
  let engine: EngineServer | undefined
  await t.rejects(async () => {
    engine = await startEngineServer(options)
  }, error)
  await engine?.close()
  t.ok(performance.now() - started < 30_000, 'it did not take long')
  t.same(replicas.map(({directory}) => directoryState(directory)), states, 'no file has changed')
  for (const {rpc} of replicas) t.match((await rpc.replicaGet()).replica?.state, /^(closed|error|initial)$/)
  await until(async () => (await openDescriptors()) <= descriptors + 2, 'nothing is left open')
}

async function openDescriptors(): Promise<number> {
  const {readdir} = await import('node:fs/promises')
  return (await readdir('/proc/self/fd')).length
}

async function works(t: Test, {replicas}: Rig): Promise<void> {
  const {engine, close} = await startEngineServer(engineOptions(replicas))
  t.same(engine.replicas.map(({mode}) => mode), replicas.map(() => 'RW'))
  t.ok((await read(engine.volume, 4096, 8192)).equals(Buffer.alloc(8192, 7)))
  await close()
}

/** An address where nobody listens. */
async function deadAddress(): Promise<string> {
  const listener = await Listener.open(LOOPBACK, closeFd)
  await listener.close()
  return formatAddress(listener.address)
}

t.test('what is wrong with the options is found out first', async t => {
  const one = await rig(t)
  const {replicas} = one
  const names = ['', 'a', 'a/b', '../x', '.hidden', '-rf', 'a b', 'ä', 'x'.repeat(65), 'a\n', 'a\0b']
  for (const volume of names) await refused(t, one, engineOptions(replicas, {volume}), {code: 'LH_USAGE', message: /^invalid volume name/})
  await refused(t, one, engineOptions(replicas, {frontend: 'iscsi'}), {code: 'LH_USAGE', message: /unknown frontend "iscsi": expected socket$/})
  for (const address of ['', 'nonsense', 'unix:/x.sock', '127.0.0.1:0', '127.0.0.1:65535', 'tcp://127.0.0.1']) {
    await refused(t, one, engineOptions([...replicas, address]), {code: 'LH_USAGE'})
  }
  await refused(t, one, engineOptions([...replicas, replicas[0]!]), {code: 'LH_USAGE', message: /is given twice$/})
  const {port} = replicas[0]!.server.address
  await refused(t, one, engineOptions([...replicas, `127.0.0.1:${port}`]), {code: 'LH_USAGE', message: /is given twice$/})
  const many = Array.from({length: 31}, (_, index) => `127.0.0.1:${1000 + index}`)
  await refused(t, one, engineOptions(many), {code: 'LH_USAGE', message: /more than 30 replicas$/})
  await works(t, one)
})

t.test('replicas that cannot be reached', async t => {
  const one = await rig(t)
  const dead = await deadAddress()
  await refused(t, one, engineOptions([dead]), {code: 'LH_UNREACHABLE', message: new RegExp(dead.slice(6).replace('.', '\\.'))})
  await refused(t, one, engineOptions([dead, await deadAddress()]), {code: 'LH_UNREACHABLE'})
  await refused(t, one, engineOptions([...one.replicas, dead], {leastReplicas: 3}), {code: 'LH_NO_DATA', message: /^2 of at least 3 replicas can be used: /})

  t.test('the others are enough, if that is what was asked for', async t => {
    const {log, lines} = memoryLog()
    const {engine} = await runEngine(t, engineOptions([dead, ...one.replicas], {leastReplicas: 2, log}))
    t.same(engine.replicas.map(({mode}) => mode), ['ERR', 'RW', 'RW'])
    t.match(engine.replicas[0], {address: dead, reason: /refused|unreachable|connect/i})
    t.match(lines.filter(({level}) => level === 'error'), [{msg: 'starting without this replica', replica: dead}])
  })

  t.test('whose data port nobody serves', async t => {
    const {replicas, ...rest} = await rig(t)
    const decoy = await Listener.open(LOOPBACK, closeFd)
    t.teardown(() => decoy.close())
    // Connections to the data port end at once: the engine notices when it uses it.
    const {port} = decoy.address as TcpAddress
    await refused(t, {replicas, ...rest}, engineOptions([...replicas, `127.0.0.1:${port}`], {leastReplicas: 3}), {code: 'LH_NO_DATA'})
  })
})

t.test('sizes that do not fit', async t => {
  const one = await rig(t)
  await refused(t, one, engineOptions(one.replicas, {sizeBytes: 2 * SIZE_BYTES}), {code: 'LH_CONFLICT', message: /is given as 8 MiB .* has 4 MiB/})
  const {replicas, ...rest} = await rig(t, 3)
  const three = {...rest, replicas}
  // As an expansion leaves it that was cut short.
  const larger = replicas[2]!
  await larger.rpc.replicaOpen({session: 'expanding'})
  await larger.rpc.replicaExpand({size: BigInt(2 * SIZE_BYTES)})
  await larger.rpc.replicaClose()
  await refused(t, three, engineOptions(replicas), {code: 'LH_CONFLICT', message: /different sizes/})
  await refused(t, three, engineOptions(replicas, {sizeBytes: 3 * SIZE_BYTES}), {code: 'LH_CONFLICT', message: /different sizes/})
  t.test('--current-size leaves out those of another size', async t => {
    const {engine} = await runEngine(t, engineOptions(three.replicas, {sizeBytes: 2 * SIZE_BYTES, currentSizeBytes: SIZE_BYTES}))
    t.same(engine.replicas.map(({mode}) => mode), ['RW', 'RW', 'ERR'])
    t.equal(engine.volume.sizeBytes, SIZE_BYTES)
  })
  t.test('an expansion that was cut short', async t => {
    const short = await rig(t, 3)
    const [first] = short.replicas
    await first!.rpc.replicaOpen({session: 'expanding'})
    await first!.rpc.replicaExpand({size: BigInt(2 * SIZE_BYTES)})
    await first!.rpc.replicaClose()
    const {engine, close} = await startEngineServer(engineOptions(short.replicas, {sizeBytes: 2 * SIZE_BYTES}))
    t.equal(engine.replicas[0]!.mode, 'RW')
    await until(() => engine.replicas.every(({mode}) => mode === 'RW'), 'the others get it from the one that has it')
    await write(engine.volume, SIZE_BYTES + 4096, Buffer.alloc(4096, 1))
    t.ok((await read(engine.volume, 4096, 8192)).equals(Buffer.alloc(8192, 7)))
    await close()
    for (const {rpc} of short.replicas) t.equal((await rpc.replicaGet()).replica!.size, `${2 * SIZE_BYTES}`)
  })
  await works(t, one)
})

t.test('replicas whose files cannot be used', async t => {
  t.test('an empty one', async t => {
    const one = await rig(t)
    const empty = await runReplica(t, join(one.folder, 'empty'), undefined)
    await refused(t, {...one, replicas: [empty]}, engineOptions([empty]), {code: 'LH_NO_DATA', message: /has no files yet/})
    await refused(t, {...one, replicas: [...one.replicas, empty]}, engineOptions([...one.replicas, empty], {leastReplicas: 3}), {code: 'LH_NO_DATA'})
  })

  for (const [what, spoil] of [
    ['volume.meta is not JSON', (dir: string) => writeFileSync(join(dir, 'volume.meta'), '{"Size":4194')],
    ['volume.meta names a head that is not there', (dir: string) => edit(dir, text => text.replace('volume-head-000', 'volume-head-007'))],
    ['the head is gone', (dir: string) => rmSync(join(dir, 'volume-head-000.img'))],
    ["the head's meta file is gone", (dir: string) => rmSync(join(dir, 'volume-head-000.img.meta'))],
    ['the volume is smaller than its head', (dir: string) => edit(dir, text => text.replace('4194304', '4096'))],
  ] as const) {
    t.test(what, async t => {
      const one = await rig(t)
      const [bad, good] = one.replicas
      spoil(bad!.directory)
      await refused(t, one, engineOptions([bad!]), {code: 'LH_NO_DATA', message: /files are damaged/})
      await refused(t, one, engineOptions(one.replicas, {leastReplicas: 2}), {code: 'LH_NO_DATA'})
      await works(t, {...one, replicas: [good!]})
    })
  }

  t.test('one that has recorded an error', async t => {
    const one = await rig(t)
    edit(one.replicas[0]!.directory, text => text.replace('"Error":""', '"Error":"EIO on volume-head-000.img"'))
    await refused(t, one, engineOptions([one.replicas[0]!]), {code: 'LH_NO_DATA', message: /is error after it was opened$/})
  })
})

function edit(directory: string, change: (text: string) => string): void {
  const path = join(directory, 'volume.meta')
  const text = readFileSync(path, 'utf8')
  const changed = change(text)
  if (changed === text) throw new Error('nothing was changed')
  writeFileSync(path, changed)
}

t.test('addresses that are taken', async t => {
  t.test('the control port', async t => {
    const one = await rig(t)
    const taken = await Listener.open(LOOPBACK, closeFd)
    t.teardown(() => taken.close())
    await refused(t, one, engineOptions(one.replicas, {listen: taken.address as TcpAddress}), {code: 'LH_CONFLICT', message: /in use/})
    await works(t, one)
  })

  t.test("the frontend's socket", async t => {
    const one = await rig(t)
    const path = join(one.folder, 'vol.sock')
    const taken = await Listener.open({kind: 'unix', path}, closeFd)
    t.teardown(() => taken.close())
    await refused(t, one, engineOptions(one.replicas, {frontend: 'socket', frontendListen: {kind: 'unix', path}}), {code: 'LH_CONFLICT', message: /in use/})
    t.ok(existsSync(path))
    await refused(t, one, engineOptions(one.replicas, {frontend: 'socket', frontendListen: LOOPBACK}), {code: 'LH_USAGE'})
    await works(t, one)
  })

  t.test('by the engine of this volume: started twice, the first goes on', async t => {
    const one = await rig(t)
    const first = await runEngine(t, engineOptions(one.replicas))
    await write(first.engine.volume, 0, Buffer.alloc(4096, 1))
    await t.rejects(startEngineServer(engineOptions(one.replicas, {listen: first.address as TcpAddress})), {code: 'LH_CONFLICT'})
    t.same(first.engine.replicas.map(({mode}) => mode), ['RW', 'RW'])
    t.match(await write(first.engine.volume, 4096, Buffer.alloc(4096, 2)), {error: 0})
    t.ok((await read(first.engine.volume, 0, 4096)).equals(Buffer.alloc(4096, 1)))
  })
})

t.test('started and told to stop', async t => {
  const one = await rig(t)
  const states = one.replicas.map(({directory}) => directoryState(directory))
  const reason = new Error('never mind')
  await t.rejects(startEngineServer(engineOptions(one.replicas), AbortSignal.abort(reason)), reason)
  t.same(one.replicas.map(({directory}) => directoryState(directory)), states)
  for (let ms = 0; ms < 40; ms += 4) {
    const controller = new AbortController()
    setTimeout(() => controller.abort(reason), ms)
    try {
      await (await startEngineServer(engineOptions(one.replicas), controller.signal)).close()
    } catch (error) {
      t.equal(error, reason)
    }
    for (const {rpc} of one.replicas) t.equal((await rpc.replicaGet()).replica?.state, 'closed', `after ${ms} ms`)
  }
  await works(t, one)
})

t.test('a clean stop', async t => {
  const folder = shortDir(t)
  const replicas = await runReplicas(t, folder, 3)
  const path = join(folder, 'vol.sock')
  const {engine, close} = await startEngineServer(engineOptions(replicas, {frontend: 'socket', frontendListen: {kind: 'unix', path}}))
  t.same(engine.frontend, {name: 'socket', endpoint: path, notice: ''})
  const initiator = new FramePeer(await dial({kind: 'unix', path}))
  for (let sequence = 0; sequence < 200; sequence++) {
    initiator.send({sequence, type: FRAME.WRITE, offset: BigInt((sequence * 54_321) % (SIZE_BYTES - 20_000)), payload: Buffer.alloc(100 + sequence * 97, sequence)})
  }
  // All of them are on their way when it is told to stop; each is answered or was never acknowledged.
  t.match(await initiator.next(), {type: FRAME.RESPONSE})
  await Promise.all([close(), close()])
  await initiator.end()
  t.notOk(existsSync(path), 'the socket is removed')
  const [first, ...rest] = replicas.map(({directory}) => directoryState(directory)['volume-head-000.img'])
  for (const other of rest) t.equal(other, first, 'all replicas are the same')
  t.match(readFileSync(join(replicas[0]!.directory, 'volume.meta'), 'utf8'), /"Dirty":false/)
  for (const {rpc} of replicas) t.equal((await rpc.replicaGet()).replica?.state, 'closed')
})

t.test('a second engine takes the replicas over', async t => {
  const folder = shortDir(t)
  const replicas = await runReplicas(t, folder, 2)
  const first = await startEngineServer(engineOptions(replicas))
  t.match(await write(first.engine.volume, 0, Buffer.alloc(4096, 1)), {error: 0})
  const second = await runEngine(t, engineOptions(replicas))
  await until(() => second.engine.replicas.every(({mode}) => mode === 'RW'), 'they have been compared')
  t.ok((await read(second.engine.volume, 0, 4096)).equals(Buffer.alloc(4096, 1)))
  await until(() => first.engine.replicas.every(({mode}) => mode === 'ERR'), 'the first one has lost them')
  t.match(await write(first.engine.volume, 0, Buffer.alloc(4096, 9)), {error: 5})
  t.match(await write(second.engine.volume, 4096, Buffer.alloc(4096, 2)), {error: 0})
  // What the first one does when it is stopped is of no consequence.
  await first.close()
  t.match(await write(second.engine.volume, 8192, Buffer.alloc(4096, 3)), {error: 0})
  t.ok((await read(second.engine.volume, 0, 4096)).equals(Buffer.alloc(4096, 1)))
})

t.test('a stopped engine does not close replicas that another has taken over meanwhile', async t => {
  const folder = shortDir(t)
  const replicas = await runReplicas(t, folder, 2)
  for (let round = 0; round < 5; round++) {
    const first = await startEngineServer(engineOptions(replicas))
    // At the same time: whoever opens a replica last must be able to use it.
    const [second] = await Promise.all([startEngineServer(engineOptions(replicas)), first.close()])
    const usable = second.engine.replicas.filter(({mode}) => mode === 'RW').length
    if (usable > 0) t.match(await write(second.engine.volume, 0, Buffer.alloc(4096, round)), {error: 0}, `round ${round}, ${usable} replicas`)
    await second.close()
  }
})

