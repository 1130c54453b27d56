// File systems on /dev/longhorn/VOL over two replicas, with the tools that everybody uses.
import {readFileSync} from 'node:fs'
import {open, readdir, rm, stat} from 'node:fs/promises'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {until} from '../support/until.js'
import {blockVolume, mount, tracesOf, unmount, withoutBlockDevices} from './support/block-device-host.js'
import {fill, FILE_SYSTEMS, sumsNow, writeSynced, type FileSystem} from './support/file-system.js'
import type {LiveVolume} from './support/live-volume.js'
import {tool} from './support/tool.js'

const MIB = 1024 * 1024

for (const [name, fileSystem] of Object.entries(FILE_SYSTEMS)) {
  const skip = await withoutBlockDevices(fileSystem.make[0], fileSystem.check[0], 'fstrim')
  t.test(`${name}: files are there after unmounting, restarting, and on each replica`, {skip}, t => keepsFiles(t, fileSystem))
  t.test(`${name}: an engine that is told to stop while its device is mounted`, {skip}, t => stopsWhileMounted(t, fileSystem))
}

t.test('an engine that is told twice to stop while its device is mounted: another process removes the device', {skip: await withoutBlockDevices('mkfs.ext4')}, async t => {
  const volume = await blockVolume(t, FILE_SYSTEMS['ext4']!.leastBytes)
  const device = await volume.start({frontend: 'blockdev'})
  await tool([...FILE_SYSTEMS['ext4']!.make, device])
  await mount(volume, device)
  t.equal(await volume.engine.interrupt(/taken away from its users/), 130)
  await until(() => tracesOf(volume.name).length === 0, 'the device is gone, and so is the mount', 60_000)
  await volume.stopReplicas()
})

async function keepsFiles(t: Test, {make, check, leastBytes}: FileSystem): Promise<void> {
  const volume = await blockVolume(t, leastBytes)
  let device = await volume.start({frontend: 'blockdev'})
  t.equal(device, `/dev/longhorn/${volume.name}`)
  t.equal((await tool(['blockdev', '--getsize64', device])).trim(), `${leastBytes}`)
  await tool([...make, device])
  let mountPoint = await mount(volume, device)
  const sums = await fill(mountPoint, 40 * MIB)
  await unmount(mountPoint)
  await tool([...check, device])

  mountPoint = await mount(volume, device)
  t.same(await sumsNow(mountPoint, sums), sums, 'after unmounting and mounting')
  await givesSpaceBack(t, volume, mountPoint)
  t.same(await sumsNow(mountPoint, sums), sums, 'after fstrim')
  await unmount(mountPoint)
  await tool([...check, device])
  await volume.stop()
  t.same(tracesOf(volume.name), [], 'an engine that was stopped leaves nothing on the host')
  const [first, second] = await volume.sumsOfReplicas()
  t.equal(first, second, 'both replicas hold the same')

  await volume.startReplicas()
  for (const only of [0, 1]) {
    device = await volume.startEngine({frontend: 'blockdev', over: [only]})
    await tool([...check, device])
    mountPoint = await mount(volume, device)
    t.same(await sumsNow(mountPoint, sums), sums, `from replica ${only} alone`)
    await unmount(mountPoint)
    await volume.engine.stop()
  }
  await volume.stopReplicas()
}

async function givesSpaceBack(t: Test, volume: LiveVolume, mountPoint: string): Promise<void> {
  await writeSynced(join(mountPoint, 'large'), Buffer.alloc(48 * MIB, 0x5a))
  const before = await allocated(volume)
  await rm(join(mountPoint, 'large'))
  await tool(['sync', '-f', mountPoint])
  t.match(await tool(['fstrim', '-v', mountPoint]), /trimmed/)
  const after = await allocated(volume)
  for (const [index, bytes] of after.entries()) t.ok(bytes < before[index]! - 40 * MIB, `replica ${index} takes ${before[index]} bytes before, ${bytes} after`)
}

function allocated(volume: LiveVolume): Promise<number[]> {
  return Promise.all(volume.directories.map(spaceOf))
}

/** What the layers of a replica take, in bytes. */
async function spaceOf(directory: string): Promise<number> {
  const layers = (await readdir(directory)).filter(name => name.endsWith('.img'))
  const sizes = await Promise.all(layers.map(async name => (await stat(join(directory, name))).blocks * 512))
  return sizes.reduce((sum, size) => sum + size, 0)
}

async function stopsWhileMounted(t: Test, {make, check, leastBytes}: FileSystem): Promise<void> {
  const volume = await blockVolume(t, leastBytes)
  let device = await volume.start({frontend: 'blockdev'})
  await tool([...make, device])
  let mountPoint = await mount(volume, device)
  const sums = await fill(mountPoint, 8 * MIB)
  // Written, and not synced by anybody.
  await tool(['cp', '-r', join(mountPoint, 'd0'), join(mountPoint, 'late')])
  const late = Object.fromEntries(Object.entries(sums).flatMap(([path, sum]) => (path.startsWith('d0/') ? [[path.replace('d0', 'late'), sum]] : [])))
  await volume.engine.stop()
  t.same(tracesOf(volume.name), [], 'the device is gone, and so is the mount')
  t.ok(volume.engine.log.some(({level, msg}) => level === 'warn' && /in use/.test(String(msg))), 'and the log says so')

  device = await volume.startEngine({frontend: 'blockdev'})
  mountPoint = await mount(volume, device)
  t.same(await sumsNow(mountPoint, {...sums, ...late}), {...sums, ...late}, 'all that was written before is there')
  await staysWithWhoHoldsIt(t, volume, mountPoint)
  device = await volume.startEngine({frontend: 'blockdev'})
  mountPoint = await mount(volume, device)
  t.equal(readFileSync(join(mountPoint, 'held'), 'utf8'), 'before', 'what was written before the end is there')
  await unmount(mountPoint)
  await tool([...check, device])
  await volume.stop()
}

/** Somebody has a file open there all the time. */
async function staysWithWhoHoldsIt(t: Test, volume: LiveVolume, mountPoint: string): Promise<void> {
  await using file = await open(join(mountPoint, 'held'), 'w')
  await file.write('before')
  await volume.engine.stop()
  const [loop = '', ...others] = tracesOf(volume.name)
  t.match(loop, /^loop\d+$/, 'the kernel keeps a device for who has a file open')
  t.same(others, [], 'and nothing else is left')
  t.ok(volume.engine.log.some(({warning}) => String(warning).includes(loop)), 'the log says which')
  const later = file.write('after').then(() => file.sync())
  await t.rejects(later, {code: /EIO|EROFS/}, 'writing fails, and does not hang')
  await file.close()
  await until(() => tracesOf(volume.name).length === 0, 'the device goes with its last user')
}
