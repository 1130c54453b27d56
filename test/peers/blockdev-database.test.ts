// A database on a file system on a volume, while its replicas and its engine are killed. What SQLite says is committed must stay.
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {seededRandom} from '../replica/support/random.js'
import {Bank, faultsOf, lastOf, type Journal} from './support/bank.js'
import {blockVolume, mount, tracesOf, unmount, withoutBlockDevices} from './support/block-device-host.js'
import {FILE_SYSTEMS, type FileSystem} from './support/file-system.js'
import {longhorn, type LiveVolume} from './support/live-volume.js'
import {tool} from './support/tool.js'

const JOURNALS: Record<string, Journal> = {ext4: 'wal', xfs: 'delete'}

for (const [name, fileSystem] of Object.entries(FILE_SYSTEMS)) {
  const journal = JOURNALS[name]!
  const skip = await withoutBlockDevices(fileSystem.make[0], fileSystem.check[0], 'sqlite3')
  t.test(`${name}, ${journal}: a replica is killed, then the engine, and then one again without a detach`, {skip}, t => survivesKills(t, fileSystem, journal))
}

async function survivesKills(t: Test, fileSystem: FileSystem, journal: Journal): Promise<void> {
  const volume = await blockVolume(t, fileSystem.leastBytes, {replicas: 3})
  let device = await volume.start({frontend: 'blockdev'})
  await tool([...fileSystem.make, device])
  let mountPoint = await mount(volume, device)
  const database = join(mountPoint, 'bank.db')
  await Bank.found(database)

  const random = seededRandom(t)
  const victim = random.below(3)
  let bank = Bank.run(database, journal, 0)
  await bank.goesOn(10 + random.below(20))
  await volume.killReplica(victim)
  await bank.goesOn(20)
  t.same(await volume.modes(), ['RW', 'RW', 'RW'].with(victim, 'ERR'), 'the replica that was killed is out')
  await bank.stop()
  t.same(await faultsOf(database, bank.committed), [], 'nobody has noticed that a replica was killed')

  bank = Bank.run(database, journal, await lastOf(database))
  await bank.goesOn(10 + random.below(20))
  await volume.engine.kill()
  t.match(await bank.fails(), /disk I\/O error|readonly|unable to open|malformed/, 'without an engine there is an error')
  t.match(JSON.parse(await longhorn('volume', 'detach', volume.name, '--force')), {detached: true, unmounted: [mountPoint]})
  t.same(tracesOf(volume.name), [], 'a forced detach leaves nothing')
  device = await volume.startEngine({frontend: 'blockdev'})
  mountPoint = await recovers(t, volume, fileSystem, device, database, bank.committed)

  bank = Bank.run(database, journal, await lastOf(database))
  await bank.goesOn(20)
  await volume.engine.kill()
  await bank.fails()
  await t.rejects(volume.startEngine({frontend: 'blockdev'}), new RegExp(`LH_BUSY.*mounted at ${mountPoint}`, 's'), 'who still has the dead device mounted is told')
  await unmount(mountPoint)
  device = await volume.startEngine({frontend: 'blockdev'})
  await recovers(t, volume, fileSystem, device, database, bank.committed)
  await unmount(mountPoint)
  await tool([...fileSystem.check, device])
  await volume.stop()
  t.same(tracesOf(volume.name), [])
}

/** Mounts, which replays the journal of the file system, and opens the database, which replays its own. */
async function recovers(t: Test, volume: LiveVolume, {check}: FileSystem, device: string, database: string, committed: number): Promise<string> {
  let mountPoint = await mount(volume, device)
  t.same(await faultsOf(database, committed), [], `all ${committed} transactions whose COMMIT had returned are there, and the database is sound`)
  await unmount(mountPoint)
  await tool([...check, device])
  t.pass('the file system is sound')
  mountPoint = await mount(volume, device)
  return mountPoint
}
