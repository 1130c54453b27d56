// What was flushed is there after a power cut: the replicas lie on file systems that forget what nobody has synced.
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import t, {type Test} from 'tap'
import {seededRandom} from '../replica/support/random.js'
import {replicaImage} from '../support/replica-image.js'
import {shortDir} from '../support/short-dir.js'
import {FragileDisk, withoutFragileDisks} from './support/fragile-disk.js'
import {LiveVolume} from './support/live-volume.js'
import {Load} from './support/load.js'
import {StampedBlocks} from './support/stamped-blocks.js'

const MIB = 1024 * 1024
const SIZE = 48 * MIB
const skip = await withoutFragileDisks()

t.test('what was flushed, or written with FUA', {skip}, t => survivesPowerCuts(t, false))
t.test('what was written, with --write-through', {skip}, t => survivesPowerCuts(t, true))

async function survivesPowerCuts(t: Test, writeThrough: boolean): Promise<void> {
  const random = seededRandom(t)
  const folder = shortDir(t)
  const disks = [await FragileDisk.make(t, folder, 'ext4'), await FragileDisk.make(t, folder, 'xfs')]
  const volume = new LiveVolume(t, {sizeBytes: SIZE, directories: disks.map(({path}) => join(path, 'replica'))})
  const blocks = new StampedBlocks(SIZE, random, {writeThrough})
  const flags = writeThrough ? ['--write-through'] : []
  for (let round = 0; round < 2; round++) {
    const load = await Load.start(await volume.start({flags}), blocks)
    await sleep(300 + random.below(1000))
    // The engine first: it must not go on with the replica that is cut off later, and acknowledge what only that one has.
    await volume.engine.kill()
    await Promise.all(disks.map(disk => disk.cutPower()))
    await volume.killAll()
    await load.end()
    await Promise.all(disks.map(disk => disk.comeBack()))
    for (const [index, directory] of volume.directories.entries()) {
      const content = await replicaImage(directory)
      t.same(blocks.faults(content, 'power cut').slice(0, 5), [], `round ${round}: replica ${index}`)
    }
    blocks.forgetWhatWasNotFlushed()
  }
  const load = await Load.start(await volume.start({flags}), blocks)
  await load.goesOn(500)
  await load.stop()
  await volume.stop()
}
