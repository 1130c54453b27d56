// The promises of every way to attach, kept through the attacher. Each way's own test file calls these.
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {statSync} from 'node:fs'
import {mkdir, open, readFile, rm, symlink, writeFile} from 'node:fs/promises'
import {basename, join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import type {Test} from 'tap'
import type {AttachWay} from '../../../src/drivers/attach/attach-way.js'
import {isKind} from '../../../src/lib/errors.js'
import type {ChildOrder} from './support/attach-child.js'
import {AttachHost, FORGET_MOUNTS_OF_TESTS, readStart, soon} from './support/attach-host.js'
import type {Nbdkit} from './support/nbdkit.js'

const MIB = 1024 * 1024
const CHILD = fileURLToPath(new URL('support/attach-child.js', import.meta.url))

/** What holds when nothing goes wrong, and the ordinary refusals. */
export function attachContract(t: Test, makeWay: () => AttachWay): void {
  t.test('attach gives a block device with blocks of 512 bytes, detach leaves nothing', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('plain')
    const attached = await host.attach('plain', server)
    const stat = statSync(attached.device)
    t.equal(attached.device, join(host.deviceDirectory, host.volume('plain')))
    t.ok(stat.isBlockDevice())
    t.equal(stat.mode & 0o777, 0o660, 'as upstream makes it')
    t.equal(stat.rdev, statSync(`/dev/${attached.node.name}`).rdev)
    t.equal(attached.sizeBytes, 64 * MIB)
    t.equal(await queueOf(attached.node.name, 'logical_block_size'), '512')
    t.equal(await queueOf(attached.node.name, 'write_cache'), 'write back', 'file systems must send flushes')
    await writeFile(attached.device, 'longhorn')
    t.equal(await readStart(attached.device), 'longhorn')
    t.same(await host.detach('plain'), {detached: true, unmounted: [], warnings: []})
    t.equal(await readStart(server.image), 'longhorn')
    t.same(await host.leftovers(), [])
  })

  t.test('attach and detach can be repeated', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('again')
    const first = await host.attach('again', server)
    t.same(await host.attach('again', server), first)
    await rm(first.device)
    t.same(await host.attach('again', server), first, 'also when the device node is gone')
    t.ok(statSync(first.device).isBlockDevice())
    await host.detach('again')
    t.same(await host.detach('again'), {detached: false, unmounted: [], warnings: []})
    t.same(await host.leftovers(), [])
  })

  t.test('attaching at the same time gives one device, detaching at the same time succeeds', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('race')
    for (let round = 0; round < 5; round++) {
      const [one, ...others] = await Promise.all([1, 2, 3].map(() => host.attach('race', server)))
      for (const other of others) t.same(other, one)
      const reports = await Promise.all([1, 2, 3].map(() => host.detach('race')))
      t.same(reports.map(({detached}) => detached).sort(), [false, false, true], `round ${round}`)
      t.same(reports.flatMap(({warnings}) => warnings), [])
    }
    t.same(await host.leftovers(), [])
  })

  t.test('two volumes do not touch each other', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const [left, right] = [await host.serve('left'), await host.serve('right', {sizeBytes: 32 * MIB})]
    const [one, two] = await Promise.all([host.attach('left', left), host.attach('right', right)])
    t.not(one.node.name, two.node.name)
    t.equal(two.sizeBytes, 32 * MIB)
    await writeFile(one.device, 'left')
    await writeFile(two.device, 'right')
    await host.detach('left')
    t.equal(await readStart(two.device), 'right', 'still works without the other')
    await host.detach('right')
    t.equal(await readStart(left.image), 'left')
    t.equal(await readStart(right.image), 'right')
    t.same(await host.leftovers(), [])
  })

  t.test('names up to 64 characters, with dots and dashes', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('names')
    const long = host.volume('x'.repeat(64)).slice(0, 64)
    for (const volume of [long, host.volume('a.b-c_D.lock'), host.volume('..-')]) {
      const {device} = await host.attacher.attach({volume, endpoint: server.endpoint, trim: 'reads-zeros'}, soon())
      t.equal(device, join(host.deviceDirectory, volume))
      t.ok(statSync(device).isBlockDevice())
      await host.attacher.detach(volume, {}, soon())
    }
    for (const volume of ['..', 'x', '-ab', 'a/b', 'a b', 'a\n', `${long}x`]) {
      await t.rejects(host.attacher.attach({volume, endpoint: server.endpoint, trim: 'reads-zeros'}, soon()), {code: 'LH_USAGE'}, volume)
      await t.rejects(host.attacher.detach(volume, {}, soon()), {code: 'LH_USAGE'}, volume)
    }
    t.same(await host.leftovers(), [])
  })

  t.test('fsync and sync on the device reach the server as a flush', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('flush')
    const {device} = await host.attach('flush', server)
    const file = await openDevice(device)
    await file.write('data')
    const earlier = server.count('Flush')
    await file.sync()
    t.ok(server.count('Flush') > earlier, 'after fsync')
    t.ok(server.requests().lastIndexOf('Flush') > server.requests().lastIndexOf('Write'), 'and after the data')
    await file.close()
    const before = server.count('Flush')
    await host.detach('flush')
    t.ok(server.count('Flush') > before, 'detach flushes')
  })

  t.test('a read-only device, asked for or served', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const [writable, served] = [await host.serve('asked'), await host.serve('served', {readOnly: true})]
    for (const {device} of [await host.attach('asked', writable, {readOnly: true}), await host.attach('served', served)]) {
      t.equal(await host.run('blockdev', '--getro', device), '1')
      await t.rejects(host.run('dd', 'if=/dev/zero', `of=${device}`, 'bs=512', 'count=1', 'oflag=direct'))
      t.equal(await readStart(device), '')
    }
    await host.detach('asked')
    await host.detach('served')
    t.same(await host.leftovers(), [])
  })

  t.test('a mounted device is not detached, and the error names the mount point', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('busy')
    const {device} = await host.attach('busy', server)
    await host.run('mkfs.ext4', '-q', device)
    const mountPoint = await host.mount(device)
    await writeFile(join(mountPoint, 'file'), 'kept')
    await t.rejects(host.detach('busy'), {code: 'LH_BUSY', message: mountPoint})
    t.equal(await readFile(join(mountPoint, 'file'), 'utf8'), 'kept', 'nothing has happened to it')
    t.match(await host.attach('busy', server), {device}, 'attach still finds it')

    const report = await host.detach('busy', true)
    t.same(report, {detached: true, unmounted: [mountPoint], warnings: []})
    t.same(await host.leftovers(), [])
    await host.run('e2fsck', '-fn', server.image)
    t.match(await host.run('debugfs', '-R', 'cat file', server.image), /kept/, 'what was not yet synced has been written back')
  })

  t.test('a device that is mounted only in another mount namespace is not detached', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('elsewhere')
    const {device} = await host.attach('elsewhere', server)
    await host.run('mkfs.ext4', '-q', device)
    const mountPoint = join(host.root, 'private')
    await mkdir(mountPoint)
    const script = `${FORGET_MOUNTS_OF_TESTS} && mount ${device} ${mountPoint} && echo mounted && exec sleep 600`
    const child = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {stdio: ['ignore', 'pipe', 'inherit']})
    await once(child.stdout, 'data')
    await t.rejects(host.detach('elsewhere'), {code: 'LH_BUSY', message: `${mountPoint} in the mount namespace of process ${child.pid}`})
    child.kill('SIGKILL')
    await once(child, 'exit')
    t.match(await host.detach('elsewhere'), {detached: true})
    t.same(await host.leftovers(), [])
  })

  t.test('a device that is open is not detached, and the error names the process', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('opened')
    const {device, node} = await host.attach('opened', server)
    for (const path of [device, `/dev/${node.name}`]) {
      const file = await openDevice(path)
      await t.rejects(host.detach('opened'), {code: 'LH_BUSY', message: `${process.pid}`})
      await file.close()
    }
    t.match(await host.detach('opened'), {detached: true})
    t.same(await host.leftovers(), [])
  })

  t.test('a process that keeps it open gets I/O errors after a forced detach, and then nothing is left', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('held')
    const {device} = await host.attach('held', server)
    const file = await openDevice(device)
    const report = await host.detach('held', true)
    t.match(report, {detached: true})
    t.match(report.warnings.join('\n'), new RegExp(`process ${process.pid}`))
    t.same((await host.present()).filter(line => !/^(loop|nbd)/.test(line)), [], 'but for the device itself')
    await t.rejects(file.read(Buffer.alloc(4096), 0, 4096, 1 * MIB), {code: 'EIO'})
    t.match(await host.attach('held', server), {device}, 'it can be attached anew meanwhile')
    await file.close()
    await host.detach('held')
    t.same(await host.leftovers(), [])
  })

  t.test('what is attached is listed', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    t.same(await host.attacher.list(), [])
    const server = await host.serve('list')
    const attached = await host.attach('list', server)
    const [listed, ...others] = await host.attacher.list()
    t.match(listed, {...attached, state: 'attached', reason: undefined})
    t.same(others, [])
    await rm(attached.device)
    t.match(await host.attacher.list(), [{state: 'broken', reason: attached.device}])
    await host.detach('list')
    t.same(await host.attacher.list(), [])
  })

  t.test('a volume that is attached from elsewhere, or by another way, is a conflict', async t => {
    const way = makeWay()
    const host = await AttachHost.open(t, [way])
    const [one, two] = [await host.serve('one'), await host.serve('two')]
    const first = await host.attach('moved', one)
    await t.rejects(host.attach('moved', two), {code: 'LH_CONFLICT'})
    const request = {volume: host.volume('moved'), endpoint: one.endpoint, trim: 'reads-zeros'} as const
    await t.rejects(host.attacher.attach(request, soon(), 'other'), {code: 'LH_CONFLICT'})
    t.same(await host.attacher.attach(request, soon(), way.name), first)
    await host.detach('moved')
  })

  t.test('a foreign thing at the place of the device node stays, and nothing is made', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('foreign')
    await mkdir(host.deviceDirectory, {recursive: true})
    const path = join(host.deviceDirectory, host.volume('foreign'))
    const image = join(host.root, 'other.img')
    await writeFile(image, Buffer.alloc(MIB))
    const other = await host.run('losetup', '--find', '--show', image)
    const otherDevice = (await readFile(`/sys/block/${basename(other)}/dev`, 'utf8')).trim().split(':')
    const foreign: Record<string, () => Promise<unknown>> = {
      'a file': () => writeFile(path, ''),
      'a link': () => symlink('/dev/null', path),
      'another device': () => host.run('mknod', path, 'b', ...otherDevice),
    }
    for (const [what, make] of Object.entries(foreign)) {
      await make()
      await t.rejects(host.attach('foreign', server), {code: 'LH_CONFLICT', message: path}, what)
      t.match(await host.detach('foreign'), {detached: false}, what)
      t.same((await host.present()).filter(line => !line.includes(image)), [path], `${what} is still there`)
      await rm(path)
    }
    await host.run('losetup', '--detach', other)
  })

  t.test('a device node that was left behind for a device that is gone does not stand in the way', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('stale')
    await mkdir(host.deviceDirectory, {recursive: true})
    await host.run('mknod', join(host.deviceDirectory, host.volume('stale')), 'b', '7', '4095')
    const {device, node} = await host.attach('stale', server)
    t.equal(statSync(device).rdev, statSync(`/dev/${node.name}`).rdev)
    await host.detach('stale')
    t.same(await host.leftovers(), [])
  })

  t.test('resizing: bigger or UNSUPPORTED, never smaller', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('grow')
    const {sizeBytes} = await host.attach('grow', server, {sizeBytes: 32 * MIB})
    t.equal(sizeBytes, 32 * MIB)
    const volume = host.volume('grow')
    t.equal(await host.attacher.resize(volume, 32 * MIB, soon()), 32 * MIB)
    await t.rejects(host.attacher.resize(volume, 16 * MIB, soon()), {code: 'LH_CONFLICT'})
    await t.rejects(host.attacher.resize(host.volume('other'), 16 * MIB, soon()), {code: 'LH_NOT_FOUND'})
    try {
      t.equal(await host.attacher.resize(volume, 64 * MIB, soon()), 64 * MIB)
      t.match(await host.attacher.list(), [{sizeBytes: 64 * MIB}])
    } catch (error) {
      t.ok(isKind(error, 'UNSUPPORTED'))
    }
    await host.detach('grow')
  })
}

/** What holds when something dies or hangs. */
export function attachFaultContract(t: Test, makeWay: () => AttachWay): void {
  t.test('nobody serves there: UNREACHABLE, and nothing is left', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('nobody')
    await server.kill()
    await t.rejects(host.attach('nobody', server), {code: 'LH_UNREACHABLE'})
    t.same(await host.leftovers(), [])
  })

  t.test('a server that says nothing: the signal ends the attempt, and nothing is left', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('silent')
    server.suspend()
    const request = {volume: host.volume('silent'), endpoint: server.endpoint, trim: 'reads-zeros'} as const
    await t.rejects(host.attacher.attach(request, AbortSignal.timeout(300)), {name: 'TimeoutError'})
    t.same(await host.leftovers(), [])
  })

  t.test('an attach that is interrupted at any moment leaves nothing', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('interrupt')
    const request = {volume: host.volume('interrupt'), endpoint: server.endpoint, trim: 'reads-zeros'} as const
    for (const delayMs of [0, 5, 10, 20, 30, 40, 60]) {
      const attached = await host.attacher.attach(request, AbortSignal.timeout(delayMs)).catch(() => undefined)
      if (attached !== undefined) await host.detach('interrupt')
      t.same(await host.leftovers(), [], `after ${delayMs} ms`)
    }
  })

  t.test('the server was killed: detach cleans up', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('dead')
    await host.attach('dead', server)
    await server.kill()
    t.match(await host.detach('dead'), {detached: true, warnings: [/not flushed/]})
    t.same(await host.leftovers(), [])
  })

  t.test('the server was killed and is back: attach makes a new device', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('back')
    const {device} = await host.attach('back', server)
    await writeFile(device, 'first')
    await server.kill()
    await server.start()
    t.match(await host.attach('back', server), {device})
    t.equal(await readStart(device), 'first')
    await host.detach('back')
    t.same(await host.leftovers(), [])
  })

  t.test('writes that an earlier attachment has lost are not the next one\'s error', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('lost')
    // The kernel keeps an error with its device until somebody asks, and gives the same device out again: to us,
    // or to somebody else on this host who asks in between, and then it is tried once more.
    let again = false
    for (let round = 0; round < 10 && !again; round++) {
      const {device, node} = await host.attach('lost', server)
      const file = await openDevice(device)
      await file.write(Buffer.alloc(MIB))
      await server.kill()
      await file.close()
      await host.detach('lost')
      await server.start()
      again = (await host.attach('lost', server)).node.name === node.name
      await host.run('sync', device)
      await host.detach('lost')
    }
    t.ok(again, 'the same device was given out again')
  })

  t.test('the server was killed under a mounted file system: BUSY, by force nothing is left', async t => {
    for (const how of ['killed', 'hanging']) {
      const host = await AttachHost.open(t, [makeWay()])
      const server = await host.serve(how)
      const {device} = await host.attach(how, server)
      await host.run('mkfs.ext4', '-q', device)
      const mountPoint = await host.mount(device)
      await host.run('sync', '-f', mountPoint)
      await writeFile(join(mountPoint, 'dirty'), Buffer.alloc(5 * MIB, 1))
      if (how === 'killed') await server.kill()
      else server.suspend()
      await t.rejects(host.attach(how, server), {code: 'LH_BUSY', message: mountPoint}, how)
      await t.rejects(host.detach(how), {code: 'LH_BUSY', message: mountPoint}, how)
      t.match(await host.attacher.list(), [{volume: host.volume(how)}], 'listing does not hang')
      const started = performance.now()
      t.match(await host.detach(how, true), {detached: true, unmounted: [mountPoint]}, how)
      t.ok(performance.now() - started < 30_000, 'within seconds')
      t.same(await host.leftovers(), [], how)
      await host.close()
    }
  })

  t.test('killed at each step of an attach: attach works again', async t => {
    await killAtEachStep(t, makeWay, 'attach', async (host, server, step) => {
      const attached = await host.attach('steps', server)
      await writeFile(attached.device, step.padEnd(512, '\0'))
      await host.detach('steps')
      t.equal(await readStart(server.image), step)
    })
  })

  t.test('killed at each step of an attach: detach leaves nothing', async t => {
    await killAtEachStep(t, makeWay, 'attach', async host => {
      await host.detach('steps')
    })
  })

  t.test('killed at each step of a detach: detach leaves nothing', async t => {
    await killAtEachStep(t, makeWay, 'detach', async host => {
      await host.detach('steps')
    })
  })

  t.test('killed at random moments', async t => {
    const host = await AttachHost.open(t, [makeWay()])
    const server = await host.serve('steps')
    for (let round = 0; round < 8; round++) {
      const child = startChild(host, server, makeWay().name, round % 2 === 0 ? 'attach' : 'detach')
      const delayMs = 60 + Math.floor(Math.random() * 200)
      await sleep(delayMs)
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      const {device} = await host.attach('steps', server)
      t.equal(await readStart(device), '', `round ${round}, killed after ${delayMs} ms`)
    }
    await host.detach('steps')
    t.same(await host.leftovers(), [])
  })
}

/** Lets a process die after its first step, after its second one, and so on until it comes through. */
async function killAtEachStep(
  t: Test,
  makeWay: () => AttachWay,
  verb: ChildOrder['verb'],
  then: (host: AttachHost, server: Nbdkit, step: string) => Promise<void>,
): Promise<void> {
  const host = await AttachHost.open(t, [makeWay()])
  const server = await host.serve('steps')
  for (let dieAt = 0; ; dieAt++) {
    if (verb === 'detach') await host.attach('steps', server)
    const child = startChild(host, server, makeWay().name, verb, dieAt)
    let output = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text))
    await once(child, 'close')
    const steps = output.split('\n').filter(Boolean)
    const step = `killed after step ${dieAt}, ${steps.at(-1) ?? 'none'}`
    t.ok(child.signalCode === 'SIGKILL' || child.exitCode === 0, step)
    await then(host, server, step)
    t.same(await host.leftovers(), [], step)
    if (child.exitCode === 0) {
      t.ok(dieAt >= 5, `it has ${dieAt} steps`)
      return
    }
  }
}

function startChild(host: AttachHost, server: Nbdkit, way: string, verb: ChildOrder['verb'], dieAt?: number): ReturnType<typeof spawn> {
  const order: ChildOrder = {
    verb,
    way,
    request: {volume: host.volume('steps'), endpoint: server.endpoint, trim: 'reads-zeros'},
    stateDirectory: host.stateDirectory,
    deviceDirectory: host.deviceDirectory,
    ...(dieAt === undefined ? {} : {dieAt}),
  }
  return spawn(process.execPath, [CHILD, JSON.stringify(order)], {stdio: ['ignore', 'pipe', 'inherit']})
}

async function queueOf(name: string, setting: string): Promise<string> {
  return (await readFile(`/sys/block/${name}/queue/${setting}`, 'utf8')).trim()
}

async function openDevice(path: string): ReturnType<typeof open> {
  return open(path, 'r+')
}
