// Snapshots of frozen file systems: all that was written is in them, and nothing has to be repaired or replayed.
import {spawn} from 'node:child_process'
import {existsSync} from 'node:fs'
import {readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import t from 'tap'
import {until} from '../support/until.js'
import {LONGHORN} from './support/daemon.js'
import {blockVolume, mount, tracesOf, unmount, withoutBlockDevices} from './support/block-device-host.js'
import {fill, FILE_SYSTEMS, sumsNow} from './support/file-system.js'
import {longhorn, tryLonghorn, type LiveVolume} from './support/live-volume.js'
import {attempt, tool} from './support/tool.js'

const MIB = 1024 * 1024
/** How a file system is mounted without the replay of its journal. */
const WITHOUT_REPLAY: Readonly<Record<string, string>> = {ext4: 'ro,noload', xfs: 'ro,norecovery,nouuid'}

for (const [name, options] of Object.entries(WITHOUT_REPLAY)) {
  const {make, leastBytes} = FILE_SYSTEMS[name]!
  t.test(`${name}: everything is in the snapshot, without its journal`, {skip: await withoutBlockDevices(make[0], 'e2fsck')}, async t => {
    const volume = await blockVolume(t, leastBytes)
    let device = await volume.start({frontend: 'blockdev'})
    await tool([...make, device])
    const mountPoint = await mount(volume, device)
    const sums = await fill(mountPoint, 40 * MIB)
    await writeFile(join(mountPoint, 'last'), 'not synced')
    const busy = writer(mountPoint)
    await longhorn('snapshot', 'create', 'frozen', '--freeze', '--engine', volume.control)
    t.notOk(existsSync(recordOf(volume)), 'nothing is frozen any more, by the record')
    await writeFile(join(mountPoint, 'last'), 'later')
    await busy.end()
    await unmount(mountPoint)
    await volume.engine.stop()

    await volume.startEngine({frontend: 'nbd'})
    await longhorn('frontend', 'shutdown', '--engine', volume.control)
    await longhorn('snapshot', 'revert', 'frozen', '--engine', volume.control)
    await volume.engine.stop()
    device = await volume.startEngine({frontend: 'blockdev'})
    if (name === 'ext4') await tool(['e2fsck', '-f', '-n', device])
    await tool(['mount', '-o', options, device, mountPoint])
    t.same(await sumsNow(mountPoint, sums), sums)
    t.equal(await readFile(join(mountPoint, 'last'), 'utf8'), 'not synced')
    await unmount(mountPoint)
    await volume.stop()
    t.same(tracesOf(volume.name), [])
  })
}

t.test('without a mount, frozen by others, and through another frontend', {skip: await withoutBlockDevices('mkfs.ext4', 'fsfreeze')}, async t => {
  const volume = await blockVolume(t, 64 * MIB)
  const device = await volume.start({frontend: 'blockdev'})
  await longhorn('snapshot', 'create', 'raw', '--freeze', '--engine', volume.control)
  await tool(['mkfs.ext4', '-q', '-F', device])
  const mountPoint = await mount(volume, device)
  await tool(['fsfreeze', '--freeze', mountPoint])
  const refused = await tryLonghorn('snapshot', 'create', 'busy', '--freeze', '--engine', volume.control)
  t.match(refused, {code: 17})
  t.match(refused.stdout + refused.stderr, /frozen already/)
  await tool(['fsfreeze', '--unfreeze', mountPoint])
  await tool([process.execPath, LONGHORN, '--url', `http://${volume.control}`, 'snapshot', 'create', 'upstream', '--freeze-fs'])
  await longhorn('snapshot', 'create', 'again', '--freeze', '--engine', volume.control)
  await writeFile(join(mountPoint, 'file'), 'writable')
  await unmount(mountPoint)
  await volume.engine.stop()
  await volume.startEngine({frontend: 'nbd'})
  t.match(await tryLonghorn('snapshot', 'create', 'nbd', '--freeze', '--engine', volume.control), {code: 18})
  await volume.stop()
})

t.test('what an engine that was killed has left frozen is thawed when the device is detached', {skip: await withoutBlockDevices('mkfs.ext4', 'fsfreeze')}, async t => {
  const volume = await blockVolume(t, 64 * MIB)
  const device = await volume.start({frontend: 'blockdev'})
  await tool(['mkfs.ext4', '-q', '-F', device])
  const mountPoint = await mount(volume, device)
  // As after a kill -9 of everything between freezing and thawing.
  const [, major, minor] = /^\S+ \S+ (\d+):(\d+) /.exec((await readFile('/proc/self/mountinfo', 'utf8')).split('\n').find(line => line.includes(mountPoint))!)!
  await writeFile(recordOf(volume), JSON.stringify([{path: mountPoint, major: Number(major), minor: Number(minor)}]))
  await tool(['fsfreeze', '--freeze', mountPoint])
  await volume.engine.stop()
  t.same(tracesOf(volume.name), [], 'the engine could take its device away')
  await volume.stopReplicas()
})

t.test('an engine that is killed while the file system is frozen', {skip: await withoutBlockDevices('mkfs.ext4', 'e2fsck')}, async t => {
  const volume = await blockVolume(t, 64 * MIB)
  let device = await volume.start({frontend: 'blockdev'})
  await tool(['mkfs.ext4', '-q', '-F', device])
  const mountPoint = await mount(volume, device)
  const busy = writer(mountPoint)
  const snapshot = tryLonghorn('snapshot', 'create', 'never', '--freeze', '--engine', volume.control)
  await until(() => existsSync(recordOf(volume)), 'it freezes', 60_000)
  await volume.engine.kill()
  t.not((await snapshot).code, 0)
  await busy.kill()
  t.equal((await tryLonghorn('volume', 'detach', volume.name, '--force')).code, 0)
  t.same(tracesOf(volume.name), [], 'the dead device and its file system can be taken away')
  device = await volume.startEngine({frontend: 'blockdev'})
  t.ok([0, 1].includes((await attempt(['e2fsck', '-f', '-y', device])).code ?? -1), 'nothing but the journal had to be looked at')
  await longhorn('snapshot', 'create', 'after', '--freeze', '--engine', volume.control)
  await volume.stop()
})

function recordOf({name}: LiveVolume): string {
  return join('/run/longhorn/attach/volumes', name, 'frozen.json')
}

interface Writer {
  end(): Promise<void>
  kill(): Promise<void>
}

/** Changes a file all the time, with everything that keeps a journal busy. */
function writer(folder: string): Writer {
  const child = spawn('sh', ['-c', `cd "$1" && i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i > busy.$((i%50)); mkdir -p d$((i%7)); sync -d busy.$((i%50)); done; rm stop`, 'sh', folder], {stdio: 'ignore'})
  const ended = new Promise<void>(resolve => child.once('close', () => resolve()))
  return {
    end: async () => {
      await attempt(['touch', join(folder, 'stop')])
      await ended
    },
    kill: async () => {
      child.kill('SIGKILL')
      await Promise.race([ended, sleep(5000)])
    },
  }
}
