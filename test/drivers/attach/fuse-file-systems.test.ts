// File systems on an attached volume, with the tools that everyone uses.
import {createHash} from 'node:crypto'
import {mkdir, open, readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {FuseWay} from '../../../src/drivers/attach/fuse/fuse-way.js'
import {AttachHost, missing} from './support/attach-host.js'

const MIB = 1024 * 1024
/** xfs wants 300 MiB. The image is sparse. */
const SIZE = 384 * MIB

interface FileSystem {
  readonly make: readonly string[]
  readonly check: readonly string[]
  readonly grow: (device: string, mountPoint: string) => readonly string[]
  /** ext4 wants a capability for growing while it is mounted that containers rarely have. */
  readonly growsMounted: boolean
}

const FILE_SYSTEMS: Record<string, FileSystem> = {
  ext4: {make: ['mkfs.ext4', '-q'], check: ['e2fsck', '-fn'], grow: device => ['resize2fs', '-f', device], growsMounted: false},
  xfs: {make: ['mkfs.xfs', '-q'], check: ['xfs_repair', '-n'], grow: (_, mountPoint) => ['xfs_growfs', mountPoint], growsMounted: true},
}

for (const [name, fileSystem] of Object.entries(FILE_SYSTEMS)) {
  const reason = await missing(new FuseWay(), ...[fileSystem.make, fileSystem.check, fileSystem.grow('', '')].map(([program = '']) => program))
  t.test(`${name}: what was written is there after an orderly detach`, {skip: reason ?? false}, t => writeAndCheck(t, name, fileSystem))
  t.test(`${name}: what was synced is there after everything was killed`, {skip: reason ?? false}, t => killAndCheck(t, name, fileSystem))
  t.test(`${name}: the device grows while it is mounted`, {skip: reason ?? false}, t => growAndCheck(t, name, fileSystem))
}

async function writeAndCheck(t: Test, name: string, {make, check}: FileSystem): Promise<void> {
  const host = await AttachHost.open(t, [new FuseWay()])
  const server = await host.serve(name, {sizeBytes: SIZE})
  const {device} = await host.attach(name, server)
  await run(host, ...make, device)
  const mountPoint = await host.mount(device)
  const sums = await writeFiles(mountPoint)

  const flushes = server.count('Flush')
  await syncFile(join(mountPoint, 'd0', 'f0'))
  t.ok(server.count('Flush') > flushes, 'fsync of a file reaches the server')
  const more = server.count('Flush')
  await writeFile(join(mountPoint, 'late'), 'late')
  await run(host, 'sync', '--file-system', mountPoint)
  t.ok(server.count('Flush') > more, 'and so does sync')

  await run(host, 'umount', mountPoint)
  await run(host, ...check, device)
  t.same(await host.detach(name), {detached: true, unmounted: [], warnings: []})
  await run(host, ...check, server.image)

  const again = await host.attach(name, server)
  await host.mount(again.device)
  t.same(await sumsOf(mountPoint, sums), sums)
  t.equal(await readFile(join(mountPoint, 'late'), 'utf8'), 'late')
  await run(host, 'umount', mountPoint)
  await host.detach(name)
  t.same(await host.leftovers(), [])
}

async function killAndCheck(t: Test, name: string, {make, check}: FileSystem): Promise<void> {
  const host = await AttachHost.open(t, [new FuseWay()])
  const server = await host.serve(name, {sizeBytes: SIZE})
  const {device} = await host.attach(name, server)
  await run(host, ...make, device)
  const mountPoint = await host.mount(device)
  const sums = await writeFiles(mountPoint)
  await run(host, 'sync', '-f', mountPoint)
  await writeFile(join(mountPoint, 'unsynced'), Buffer.alloc(MIB, 7))
  await server.kill()
  t.match(await host.detach(name, true), {detached: true, unmounted: [mountPoint]})
  t.same(await host.leftovers(), [])

  await server.start()
  const again = await host.attach(name, server)
  // The journal is replayed by mounting; only then is there something for the checker to say.
  await host.mount(again.device)
  t.same(await sumsOf(mountPoint, sums), sums)
  await run(host, 'umount', mountPoint)
  await run(host, ...check, again.device)
  await host.detach(name)
}

async function growAndCheck(t: Test, name: string, {make, check, grow, growsMounted}: FileSystem): Promise<void> {
  const host = await AttachHost.open(t, [new FuseWay()])
  const server = await host.serve(name, {sizeBytes: 2 * SIZE})
  const {device} = await host.attach(name, server, {sizeBytes: SIZE})
  await run(host, ...make, device)
  const mountPoint = await host.mount(device)
  const sums = await writeFiles(mountPoint)
  t.equal(await host.attacher.resize(host.volume(name), 2 * SIZE, AbortSignal.timeout(60_000)), 2 * SIZE)
  if (!growsMounted) await run(host, 'umount', mountPoint)
  await run(host, ...grow(device, mountPoint))
  if (!growsMounted) await host.mount(device)
  await writeFile(join(mountPoint, 'large'), Buffer.alloc(MIB, 1))
  t.same(await sumsOf(mountPoint, sums), sums)
  const blocks = Number((await run(host, 'stat', '-f', '-c', '%b', mountPoint)).trim())
  t.ok(blocks * 4096 > 1.5 * SIZE, `the file system has ${blocks} blocks of 4096 bytes`)
  await run(host, 'umount', mountPoint)
  await run(host, ...check, device)
  await host.detach(name)
}

/** Files of all sizes; their checksums. */
async function writeFiles(folder: string): Promise<Record<string, string>> {
  const sums: Record<string, string> = {}
  for (let d = 0; d < 3; d++) {
    await mkdir(join(folder, `d${d}`))
    for (let f = 0; f < 5; f++) {
      const name = join(`d${d}`, `f${f}`)
      const content = Buffer.alloc(1 + 7 ** (f + 2) + d, `${d}${f}`)
      await writeFile(join(folder, name), content)
      sums[name] = sum(content)
    }
  }
  return sums
}

async function sumsOf(folder: string, like: Record<string, string>): Promise<Record<string, string>> {
  const sums: Record<string, string> = {}
  for (const name of Object.keys(like)) sums[name] = sum(await readFile(join(folder, name)))
  return sums
}

async function syncFile(path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.write('0')
  await file.sync()
}

function sum(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}

async function run(host: AttachHost, ...command: readonly string[]): Promise<string> {
  const [program = '', ...args] = command
  return host.run(program, ...args)
}
