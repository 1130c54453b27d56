// The whole way of an fsync: a database on a file system on a volume whose replicas forget, at a power cut, what nobody has synced.
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {seededRandom} from '../replica/support/random.js'
import {shortDir} from '../support/short-dir.js'
import {Bank, faultsOf, type Journal} from './support/bank.js'
import {blockVolume, mount, unmount, withoutBlockDevices} from './support/block-device-host.js'
import {FILE_SYSTEMS, type FileSystem} from './support/file-system.js'
import {FragileDisk, withoutFragileDisks} from './support/fragile-disk.js'
import {longhorn} from './support/live-volume.js'
import {tool} from './support/tool.js'

const JOURNALS: Record<string, Journal> = {ext4: 'delete', xfs: 'wal'}

for (const [name, fileSystem] of Object.entries(FILE_SYSTEMS)) {
  const journal = JOURNALS[name]!
  const skip = (await withoutBlockDevices(fileSystem.make[0], fileSystem.check[0], 'sqlite3')) || (await withoutFragileDisks())
  t.test(`${name}, ${journal}: what was committed is there after a power cut of every node`, {skip}, t => survivesPowerCut(t, fileSystem, journal))
}

async function survivesPowerCut(t: Test, {make, check, leastBytes}: FileSystem, journal: Journal): Promise<void> {
  const random = seededRandom(t)
  const folder = shortDir(t)
  const disks = [await FragileDisk.make(t, folder, 'xfs'), await FragileDisk.make(t, folder, 'ext4')]
  const volume = await blockVolume(t, leastBytes, {directories: disks.map(({path}) => join(path, 'replica'))})
  let device = await volume.start({frontend: 'blockdev'})
  await tool([...make, device])
  const database = join(await mount(volume, device), 'bank.db')
  await Bank.found(database)
  const bank = Bank.run(database, journal, 0)
  await bank.goesOn(40)
  await sleep(random.below(300))
  // The engine first: it must not go on with the replica that is cut off later, and acknowledge what only that one has.
  await volume.engine.kill()
  await Promise.all(disks.map(disk => disk.cutPower()))
  await bank.fails()
  await volume.killAll()
  await longhorn('volume', 'detach', volume.name, '--force')
  await Promise.all(disks.map(disk => disk.comeBack()))

  await volume.startReplicas()
  // One by one: in what was not flushed they may differ.
  for (const only of [0, 1]) {
    device = await volume.startEngine({frontend: 'blockdev', over: [only]})
    const mountPoint = await mount(volume, device)
    t.same(await faultsOf(database, bank.committed), [], `replica ${only}: all ${bank.committed} transactions whose COMMIT had returned`)
    await unmount(mountPoint)
    await tool([...check, device])
    await volume.engine.stop()
  }
  await volume.stopReplicas()
}
