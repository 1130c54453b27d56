// What is particular to the way of nbdfuse and a loop device.
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdir, open, readdir, readFile, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {fileURLToPath} from 'node:url'
import t, {type Test} from 'tap'
import type {AttachRequest} from '../../../src/drivers/attach/attach-way.js'
import {FuseWay} from '../../../src/drivers/attach/fuse/fuse-way.js'
import {readMounts} from '../../../src/drivers/attach/mount-table.js'
import {findProcesses, isRunning, waitForExit, type ProcessId} from '../../../src/drivers/attach/process-identity.js'
import type {ChildOrder} from './support/attach-child.js'
import {AttachHost, FORGET_MOUNTS_OF_TESTS, missing, readStart, soon} from './support/attach-host.js'
import {exportOf, FLAGS, serveTalk} from './support/fake-nbd-server.js'

const MIB = 1024 * 1024
const CHILD = fileURLToPath(new URL('support/attach-child.js', import.meta.url))
const skip = (await missing(new FuseWay(), 'mkfs.ext4', 'blkdiscard', 'fallocate')) ?? false

function fuseTest(name: string, body: (t: Test) => Promise<void>): void {
  t.test(name, {skip}, body)
}

async function openHost(t: Test): Promise<AttachHost> {
  return AttachHost.open(t, [new FuseWay({probeTimeoutMs: 2000})])
}

fuseTest('data is not cached a second time below the device', async t => {
  const host = await openHost(t)
  const {node} = await host.attach('direct', await host.serve('direct'))
  t.equal(await sysfs(node.name, 'loop/dio'), '1')
  await host.detach('direct')
})

fuseTest('nbdfuse is on its own: session, directory, no ties to who started it', async t => {
  const host = await openHost(t)
  await host.attach('own', await host.serve('own'))
  const {pid} = await nbdfuseOf(host)
  // After the name: state, parent, process group, session, …, and the flags as the 7th.
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? []
  t.equal(Number(fields[2]), pid, 'leads its process group')
  t.equal(Number(fields[3]), pid, 'and its session')
  const [memallocNoIo, localThrottle] = [0x80000n, 0x100000n]
  const isFlusher = (BigInt(fields[6] ?? 0) & (memallocNoIo | localThrottle)) === (memallocNoIo | localThrottle)
  t.equal(isFlusher, await hasCapability(24), 'known as an I/O flusher, if we may say so (CAP_SYS_RESOURCE)')
  await host.detach('own')
})

fuseTest('discard is TRIM; zeros are WRITE_ZEROES, or TRIM when a hole will do', async t => {
  const host = await openHost(t)
  const server = await host.serve('trim')
  const {device} = await host.attach('trim', server)
  const range = ['-o', `${MIB}`, '-l', `${MIB}`, device]
  for (const [kind, command] of Object.entries({Trim: ['blkdiscard'], Zero: ['blkdiscard', '-z']}) as ['Trim' | 'Zero', string[]][]) {
    const before = server.count(kind)
    await host.run(command[0] ?? '', ...command.slice(1), ...range)
    t.equal(server.count(kind), before + 1, command.join(' '))
  }
  // This is why the way insists on a TRIM that reads zeros: the caller is promised zeros.
  const before = server.count('Trim')
  await host.run('fallocate', '--punch-hole', '--keep-size', ...range)
  t.equal(server.count('Trim'), before + 1, 'fallocate --punch-hole')
  await host.detach('trim')
})

fuseTest('a write of one sector arrives as one sector', async t => {
  const host = await openHost(t)
  const server = await host.serve('sector')
  const {device} = await host.attach('sector', server)
  const file = await open(device, 'r+')
  await host.run('dd', 'if=/dev/urandom', `of=${device}`, 'bs=512', 'count=3', 'seek=5', 'oflag=direct', 'conv=notrunc', 'status=none')
  t.equal(server.count('Write'), 3)
  await file.close()
  await host.detach('sector')
})

fuseTest('exports that would lose data this way are refused before anything is made', async t => {
  const host = await openHost(t)
  const {has, flush, trim, zeroes, readOnly} = FLAGS
  const refusals: [number, bigint, Partial<AttachRequest>, string, RegExp][] = [
    [has | flush | trim | zeroes, 1n << 20n, {trim: 'may-keep-data'}, 'LH_UNSUPPORTED', /TRIM/],
    [has | trim | zeroes, 1n << 20n, {}, 'LH_UNSUPPORTED', /FLUSH/],
    [has | flush | trim, 1n << 20n, {}, 'LH_UNSUPPORTED', /WRITE_ZEROES/],
    [has | flush | zeroes, 1000n, {}, 'LH_UNSUPPORTED', /1000 bytes/],
    [has | flush | zeroes, 0n, {}, 'LH_UNSUPPORTED', /0 bytes/],
    [has | readOnly, 513n, {}, 'LH_UNSUPPORTED', /513 bytes/],
    [has | flush | zeroes, 1n << 20n, {sizeBytes: 2 * MIB}, 'LH_USAGE', /2097152/],
    [has | flush | zeroes, 1n << 20n, {sizeBytes: 1000}, 'LH_USAGE', /1000/],
    [has | flush | zeroes, 1n << 20n, {sizeBytes: 0}, 'LH_USAGE', /of 0 bytes/],
  ]
  for (const [flags, size, more, code, message] of refusals) {
    const endpoint = await serveTalk(t, exportOf(size, flags))
    const request: AttachRequest = {volume: host.volume('refused'), endpoint, trim: 'reads-zeros', ...more}
    await t.rejects(host.attacher.attach(request, soon()), {code, message}, String(message))
    t.same(await host.leftovers(), [])
  }
})

fuseTest('an export without TRIM needs no promise about it', async t => {
  const host = await openHost(t)
  const file = join(host.root, 'data')
  await writeFile(file, Buffer.alloc(MIB))
  const server = await host.serve('notrim', {
    plugin: ['eval', 'get_size=echo 1M', `pread=dd if=${file} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none`, `pwrite=dd of=${file} oflag=seek_bytes seek=$4 conv=notrunc status=none`, 'flush=true'],
  })
  const {device} = await host.attach('notrim', server, {trim: 'may-keep-data'})
  t.equal(await readStart(device), '')
  await writeFile(device, 'kept')
  await t.rejects(host.run('fallocate', '--punch-hole', '--keep-size', '-o', '0', '-l', '4096', device), 'there are no holes then')
  t.equal(await readStart(device), 'kept')
  await host.run('blkdiscard', '--zeroout', device)
  t.equal(await readStart(device), '', 'but there are zeros')
  t.equal(server.count('Trim'), 0)
  await host.detach('notrim')
  t.same(await host.leftovers(), [])
})

fuseTest('what nbdfuse says is in the error', async t => {
  const host = await openHost(t)
  // Answers our question about the export, and hangs up on nbdfuse.
  const endpoint = await serveTalk(t, exportOf(1n << 20n, FLAGS.has | FLAGS.flush | FLAGS.zeroes))
  const request: AttachRequest = {volume: host.volume('said'), endpoint, trim: 'reads-zeros'}
  await t.rejects(host.attacher.attach(request, soon()), {code: 'LH_UNREACHABLE', message: /nbdfuse ended: nbd_connect_uri/})
  t.same(await host.leftovers(), [])
})

fuseTest('an export name with odd characters, and a path with a space', async t => {
  const host = await openHost(t)
  await mkdir(join(host.root, 'with space+%'))
  const server = await host.serve('with space+%/s')
  const endpoint = {...server.endpoint, exportName: 'a b/ü%&?=#'}
  const {device} = await host.attacher.attach({volume: host.volume('odd'), endpoint, trim: 'reads-zeros'}, soon())
  t.equal(await readStart(device), '')
  await host.attacher.detach(host.volume('odd'), {}, soon())
})

fuseTest('nbdfuse was killed: attach makes a new device', async t => {
  const host = await openHost(t)
  const server = await host.serve('killed')
  const {device} = await host.attach('killed', server)
  await writeFile(device, 'kept')
  await killNbdfuse(host)
  t.match(await host.attach('killed', server), {device})
  t.equal(await readStart(device), 'kept')
  await killNbdfuse(host)
  t.match(await host.attacher.list(), [{state: 'broken', reason: /nbdfuse is gone/}])
  t.match(await host.detach('killed'), {detached: true})
  t.same(await host.leftovers(), [])
})

fuseTest('nbdfuse was killed or hangs under a mounted file system: BUSY, by force nothing is left', async t => {
  for (const signal of ['SIGKILL', 'SIGSTOP'] as const) {
    const host = await openHost(t)
    const server = await host.serve(signal)
    const {device} = await host.attach(signal, server)
    await host.run('mkfs.ext4', '-q', device)
    const mountPoint = await host.mount(device)
    await writeFile(join(mountPoint, 'dirty'), Buffer.alloc(5 * MIB, 1))
    process.kill((await nbdfuseOf(host)).pid, signal)
    await t.rejects(host.detach(signal), {code: 'LH_BUSY', message: mountPoint}, signal)
    await t.rejects(host.attach(signal, server), {code: 'LH_BUSY', message: mountPoint}, signal)
    const started = performance.now()
    t.match(await host.detach(signal, true), {detached: true, unmounted: [mountPoint]}, signal)
    t.ok(performance.now() - started < 30_000)
    t.same(await host.leftovers(), [], signal)
    await host.close()
  }
})

fuseTest('nbdfuse hangs and nobody uses the device: force gets rid of it', async t => {
  const host = await openHost(t)
  const server = await host.serve('hang')
  await host.attach('hang', server)
  process.kill((await nbdfuseOf(host)).pid, 'SIGSTOP')
  t.match(await host.detach('hang', true), {detached: true})
  t.same(await host.leftovers(), [])
})

fuseTest('the record is lost', async t => {
  const host = await openHost(t)
  const server = await host.serve('lost')
  const {device} = await host.attach('lost', server)
  const record = join(host.stateDirectory, 'volumes', host.volume('lost'), 'attachment.json')
  await writeFile(record, '{"torn')
  t.match(await host.attacher.list(), [{state: 'broken'}])
  t.match(await host.attach('lost', server), {device}, 'attach starts afresh')
  await rm(record)
  t.match(await host.detach('lost'), {detached: true})
  t.same(await host.leftovers(), [])
})

fuseTest('the mount was taken away by hand', async t => {
  const host = await openHost(t)
  const server = await host.serve('unmounted')
  await host.attach('unmounted', server)
  const unmount = async (): Promise<unknown> => {
    const [mount] = (await readMounts()).filter(({mountPoint}) => mountPoint.startsWith(host.stateDirectory))
    return host.run('umount', '--lazy', mount?.mountPoint ?? '')
  }
  await unmount()
  t.match(await host.detach('unmounted'), {detached: true})
  t.same(await host.leftovers(), [])

  await host.attach('unmounted', server)
  await unmount()
  await rm(join(host.stateDirectory, 'volumes', host.volume('unmounted'), 'attachment.json'))
  t.match(await host.detach('unmounted'), {detached: true}, 'and the record with it')
  t.same(await host.leftovers(), [])
})

fuseTest('the loop device was released by hand', async t => {
  const host = await openHost(t)
  const server = await host.serve('released')
  const {device} = await host.attach('released', server)
  await host.run('losetup', '--detach', device)
  t.match(await host.attach('released', server), {device})
  await host.run('losetup', '--detach', device)
  t.match(await host.detach('released'), {detached: true})
  t.same(await host.leftovers(), [])
})

fuseTest('what only looks like ours is not touched', async t => {
  const host = await openHost(t)
  const server = await host.serve('foreign')
  await host.attach('foreign', server)
  // A loop device of a file with a similar name, and an nbdfuse with a similar argument.
  const file = join(host.root, `${host.volume('foreign')}.0123456789abcdef`)
  await writeFile(file, Buffer.alloc(MIB))
  const loop = (await host.run('losetup', '--find', '--show', file)).replace('/dev/', '')
  const mountPoint = join(host.root, 'theirs')
  await mkdir(mountPoint)
  const path = join(mountPoint, host.volume('foreign'))
  const other = spawn('nbdfuse', [path, `nbd+unix:///?socket=${join(host.root, 'foreign.sock')}`], {stdio: 'ignore'})
  const ended = once(other, 'exit')
  while (!(await readMounts()).some(mount => mount.mountPoint === mountPoint)) await new Promise(resolve => setTimeout(resolve, 10))

  await host.detach('foreign', true)
  t.equal(await sysfs(loop, 'loop/backing_file'), file)
  t.equal(other.exitCode, null)
  t.same(await readdir(mountPoint), [host.volume('foreign')])
  await host.run('losetup', '--detach', `/dev/${loop}`)
  await host.run('umount', mountPoint)
  await ended
})

fuseTest('a container with a /dev of its own, and what it leaves when it is killed', async t => {
  const host = await openHost(t)
  const server = await host.serve('container')
  const dev = join(host.root, 'container-dev')
  await mkdir(dev)
  const order: ChildOrder = {
    verb: 'attach',
    way: 'fuse',
    request: {volume: host.volume('container'), endpoint: server.endpoint, trim: 'reads-zeros'},
    stateDirectory: host.stateDirectory,
    deviceDirectory: join(host.root, 'dev-of-container'),
  }
  const attach = `'${process.execPath}' '${CHILD}' '${JSON.stringify(order)}'`
  const script = [
    FORGET_MOUNTS_OF_TESTS,
    `mount -t tmpfs tmpfs ${dev}`,
    `mknod ${dev}/null c 1 3`,
    `mknod ${dev}/fuse c 10 229`,
    `mknod ${dev}/loop-control c 10 237`,
    `mount --bind ${dev} /dev`,
    attach,
    attach.replace('"verb":"attach"', '"verb":"detach"'),
    attach,
  ].join(' && ')
  await host.run('unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--mount-proc', 'sh', '-c', script)

  t.match(await host.present(), [/volumes/, /^loop/], 'the container took nbdfuse and the mount with it, but not the loop device')
  t.match(await host.attacher.list(), [{state: 'broken'}])
  const {device} = await host.attach('container', server)
  t.equal(await readStart(device), '')
  await host.detach('container')
  t.same(await host.leftovers(), [])
})

fuseTest('a device can only grow up to the size of its export', async t => {
  const host = await openHost(t)
  const server = await host.serve('grow')
  await host.attach('grow', server, {sizeBytes: 16 * MIB})
  const volume = host.volume('grow')
  t.equal(await host.attacher.resize(volume, 64 * MIB, soon()), 64 * MIB)
  await t.rejects(host.attacher.resize(volume, 64 * MIB + 512, soon()), {code: 'LH_UNSUPPORTED', message: /attach it again/})
  await host.detach('grow')
})

t.test('on a host that lacks something the reason is one line', async t => {
  const availability = await new FuseWay().available()
  if (!availability.ok) t.notMatch(availability.reason, /\n/)
  else t.same(availability, {ok: true})
})

async function killNbdfuse(host: AttachHost): Promise<void> {
  const id = await nbdfuseOf(host)
  process.kill(id.pid, 'SIGKILL')
  if (!(await waitForExit(id, 60_000))) throw new Error('nbdfuse does not end')
}

async function nbdfuseOf(host: AttachHost): Promise<ProcessId> {
  const mount = (await readMounts()).find(({mountPoint}) => mountPoint.startsWith(host.stateDirectory))
  const [, volume = '', id = ''] = mount?.source.split(':') ?? []
  const [found] = findProcesses('nbdfuse', join(mount?.mountPoint ?? '', `${volume}.${id}`))
  if (found === undefined || !isRunning(found)) throw new Error('nbdfuse does not run')
  return found
}

async function sysfs(name: string, file: string): Promise<string> {
  return (await readFile(`/sys/block/${name}/${file}`, 'utf8')).trim()
}

async function hasCapability(bit: number): Promise<boolean> {
  const [, effective = '0'] = /^CapEff:\s*([0-9a-f]+)/m.exec(await readFile('/proc/self/status', 'utf8')) ?? []
  return ((BigInt(`0x${effective}`) >> BigInt(bit)) & 1n) === 1n
}
