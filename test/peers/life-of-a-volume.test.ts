// A database on a file system on a volume, written all the time while everything is done with that volume that can be done: a snapshot, a
// replica killed and rebuilt, one removed and added, a purge, a new engine that takes over, an expansion.
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {existsSync} from 'node:fs'
import {open} from 'node:fs/promises'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {Bank, faultsOf} from './support/bank.js'
import {blockVolume, mount, tracesOf, unmount, withoutBlockDevices} from './support/block-device-host.js'
import {FILE_SYSTEMS, fill, sumsNow} from './support/file-system.js'
import {LEASH} from './support/daemon.js'
import {withoutFio} from './support/fio.js'
import {LiveVolume, longhorn, sumOfFile} from './support/live-volume.js'
import {missing, tool} from './support/tool.js'
import {openVolumeView} from '../../src/replica/open-replica.js'
import {readReplicaDirectory} from '../../src/replica/layer-chain.js'
import {until} from '../support/until.js'

const MIB = 1024 * 1024

/** What is done with the volume while `goesOn` says that it is used. Leaves snapshots `kept` and `later`. */
async function live(volume: LiveVolume, goesOn: () => Promise<unknown>, growTo?: number): Promise<void> {
  const engine = (): string[] => ['--engine', volume.control]
  await longhorn('snapshot', 'create', 'passing', ...engine())
  await goesOn()
  await volume.killReplica(1)
  await goesOn()
  await volume.startReplicas([1])
  await longhorn('replica', 'add', volume.address(1), ...engine())
  await goesOn()
  await volume.resynced()
  await longhorn('snapshot', 'create', 'later', ...engine())
  await longhorn('snapshot', 'rm', 'passing', ...engine())
  await longhorn('snapshot', 'purge', ...engine())
  await goesOn()
  await longhorn('replica', 'rm', volume.address(0), ...engine())
  await goesOn()
  await longhorn('replica', 'add', volume.address(0), ...engine())
  await volume.resynced()
  await goesOn()
  await volume.upgradeEngine()
  await goesOn()
  if (growTo !== undefined) await longhorn('volume', 'expand', `${growTo}`, ...engine())
  await goesOn()
}

t.test('SQLite, write-ahead log, ext4', {skip: await withoutBlockDevices('mkfs.ext4', 'e2fsck', 'sqlite3')}, async t => {
  const {make, check, leastBytes} = FILE_SYSTEMS['ext4']!
  const volume = await blockVolume(t, leastBytes)
  const device = await volume.start({frontend: 'blockdev'})
  await tool([...make, device])
  const mountPoint = await mount(volume, device)
  const files = await fill(mountPoint, 16 * MIB)
  const database = join(mountPoint, 'bank.db')
  await Bank.found(database)
  const bank = Bank.run(database, 'wal', 0)
  await bank.goesOn(20)
  const committed = bank.committed
  await longhorn('snapshot', 'create', 'kept', '--engine', volume.control)
  const kept = await snapshotSums(volume, 'kept')
  await live(volume, () => bank.goesOn(10), 2 * leastBytes)
  await bank.stop()
  t.same(await faultsOf(database, bank.committed), [], 'the database has all that was committed')
  t.same(await sumsNow(mountPoint, files), files, 'the files are what they were')
  await unmount(mountPoint)
  await tool([...check, device])
  await volume.stop()
  t.same(tracesOf(volume.name), [])
  await sameReplicas(t, volume, kept)
  for (const directory of volume.directories) t.equal((await readReplicaDirectory(directory)).volume.sizeBytes, 2 * leastBytes, 'it has grown')

  // What was there at the time.
  const image = join(volume.folder, 'image')
  await writeSnapshot(volume, 'kept', image)
  await tool(['sh', '-c', 'e2fsck -fy "$1" || [ $? -eq 1 ]', 'sh', image])
  await tool(['mount', '-o', 'loop', image, mountPoint])
  t.same(await faultsOf(database, committed).then(lines => lines.filter(line => !line.startsWith('beyond'))), [], 'the snapshot has what was committed before it')
  t.same(await sumsNow(mountPoint, files), files)
  await unmount(mountPoint)
})

for (const frontend of ['nbd', 'iscsi'] as const) {
  const skip = (await withoutFio()) || (frontend === 'iscsi' && (await missing('qemu-nbd')))
  t.test(`fio over ${frontend}`, {skip}, async t => {
    const volume = new LiveVolume(t, {sizeBytes: 64 * MIB})
    const target = await volume.start({frontend})
    const {uri, end} = frontend === 'nbd' ? {uri: target, end: async () => undefined} : await bridge(t, volume, target)
    const command = ['fio', '--name=verify', '--rw=randwrite', '--ioengine=nbd', `--uri=${uri}`, '--iodepth=8', '--size=32m', '--bsrange=4k-256k', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--randrepeat=0'] as const
    await tool([...command])
    await longhorn('snapshot', 'create', 'kept', '--engine', volume.control)
    const kept = await snapshotSums(volume, 'kept')
    let over = false
    let runs = 0
    const load = (async () => {
      for (; !over; runs++) await tool([...command, '--rate=16m'])
    })()
    try {
      // Throws what fio says as soon as it says it.
      await Promise.race([load, live(volume, () => new Promise(resolve => setImmediate(resolve)))])
    } finally {
      over = true
      await load
    }
    t.ok(runs > 0, `${runs} runs of fio`)
    await end()
    await volume.stop()
    await sameReplicas(t, volume, kept)
  })
}

/** An NBD server that is an iSCSI initiator. */
async function bridge(t: Test, volume: LiveVolume, target: string): Promise<{uri: string; end(): Promise<void>}> {
  const socket = join(volume.folder, 's')
  const pidFile = join(volume.folder, 'pid')
  const [program = '', ...args] = [...LEASH, 'qemu-nbd', '--persistent', '--shared=4', '--format=raw', '--cache=none', `--pid-file=${pidFile}`, `--socket=${socket}`, target]
  const child = spawn(program, args, {stdio: 'inherit'})
  const ended = once(child, 'close')
  // Without its target it would wait for that.
  t.teardown(() => child.kill('SIGKILL'))
  await until(() => existsSync(pidFile), 'qemu-nbd listens', 60_000)
  const end = async (): Promise<void> => {
    child.kill('SIGTERM')
    await ended
  }
  return {uri: `nbd+unix:///?socket=${socket}`, end}
}

/** What each replica holds of a snapshot. */
async function snapshotSums(volume: LiveVolume, name: string): Promise<string[]> {
  const file = join(volume.folder, 'sum')
  const sums: string[] = []
  for (const index of volume.directories.keys()) {
    await writeSnapshot(volume, name, file, index)
    sums.push(await sumOfFile(file))
  }
  return sums
}

async function writeSnapshot(volume: LiveVolume, name: string, path: string, replica = 0): Promise<void> {
  await using view = await openVolumeView(volume.directories[replica]!, `volume-snap-${name}.img`)
  await using file = await open(path, 'w')
  const chunk = Buffer.alloc(MIB)
  for (let offset = 0; offset < view.sizeBytes; offset += MIB) {
    await view.reader.read(chunk, 0, MIB, offset)
    await file.write(chunk, 0, MIB, offset)
  }
}

/** Nothing of the volume runs. */
async function sameReplicas(t: Test, volume: LiveVolume, kept: readonly string[]): Promise<void> {
  const [first, second] = await volume.sumsOfReplicas()
  t.equal(first, second, 'both replicas hold the same')
  t.same(await snapshotSums(volume, 'kept'), kept, 'and of the first snapshot what it was')
  const [one, other] = await snapshotSums(volume, 'later')
  t.equal(one, other, 'and of the later one the same')
}
