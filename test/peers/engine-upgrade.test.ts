// Engines take the place of each other while programs that nobody here wrote use the volume, and check what they read.
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {existsSync} from 'node:fs'
import {join} from 'node:path'
import t, {type Test} from 'tap'
import {until} from '../support/until.js'
import {blockVolume, mount, tracesOf, unmount, withoutBlockDevices} from './support/block-device-host.js'
import {LEASH} from './support/daemon.js'
import {withoutFio} from './support/fio.js'
import {LiveVolume} from './support/live-volume.js'
import {withoutQemuIscsi} from './support/qemu-iscsi.js'
import {tool} from './support/tool.js'

const MIB = 1024 * 1024
const SIZE = 256 * MIB
const UPGRADES = 20

const fio = await withoutFio()

for (const transport of ['unix', 'tcp'] as const) {
  t.test(`nbd over ${transport}: fio notices nothing of ${UPGRADES} upgrades`, {skip: fio}, async t => {
    const volume = new LiveVolume(t, {sizeBytes: SIZE})
    const uri = await volume.start({frontend: 'nbd', transport})
    // Requests that are cut up, so that upgrades come in the middle of payloads.
    await survives(t, volume, ['--ioengine=nbd', `--uri=${uri}`, '--numjobs=2', '--offset_increment=128m', '--size=64m', '--bsrange=4k-1m'])
    t.match(await volume.modes(), ['RW', 'RW'])
    await volume.stop()
    const [first, second] = await volume.sumsOfReplicas()
    t.equal(first, second, 'both replicas hold the same')
    t.notOk(existsSync(join(volume.folder, 'nbd')), 'the last engine removes the socket that the first has made')
  })
}

t.test(`blockdev: fio on the device notices nothing of ${UPGRADES} upgrades, and the device stays`, {skip: fio === false ? await withoutBlockDevices('mkfs.ext4', 'e2fsck') : fio}, async t => {
  const volume = await blockVolume(t, SIZE)
  const device = await volume.start({frontend: 'blockdev'})
  await tool(['mkfs.ext4', '-q', '-F', device])
  const mountPoint = await mount(volume, device)
  await survives(t, volume, ['--ioengine=psync', '--direct=1', `--directory=${mountPoint}`, '--numjobs=4', '--size=32m', '--bsrange=4k-256k', '--fsync=32'])
  await unmount(mountPoint)
  await tool(['e2fsck', '-f', '-n', device])
  await volume.stop()
  t.same(tracesOf(volume.name), [], 'the last engine removes the device that the first has made')
  const [first, second] = await volume.sumsOfReplicas()
  t.equal(first, second, 'both replicas hold the same')
})

/** QEMU's iSCSI initiator, libiscsi, whose only user is its NBD server, whose only client is fio. */
t.test('iscsi: libiscsi logs in again at the new engine, and its user notices nothing', {skip: fio === false ? await withoutQemuIscsi() : fio}, async t => {
  const volume = new LiveVolume(t, {sizeBytes: SIZE})
  const target = await volume.start({frontend: 'iscsi'})
  const socket = join(volume.folder, 's')
  const pidFile = join(volume.folder, 'pid')
  const options = ['--persistent', '--shared=4', '--format=raw', '--cache=none', `--pid-file=${pidFile}`, `--socket=${socket}`]
  const [program = '', ...args] = [...LEASH, 'qemu-nbd', ...options, target]
  const bridge = spawn(program, args, {stdio: 'inherit'})
  const ended = once(bridge, 'close')
  t.teardown(async () => {
    bridge.kill('SIGTERM')
    await ended
  })
  await until(() => existsSync(pidFile), 'qemu-nbd listens', 60_000)
  await survives(t, volume, ['--ioengine=nbd', `--uri=nbd+unix:///?socket=${socket}`, '--size=64m', '--bsrange=4k-256k'], ['--iscsi-state-dir', join(volume.folder, 'iscsi')])
  bridge.kill('SIGTERM')
  await ended
  await volume.stop()
  const [first, second] = await volume.sumsOfReplicas()
  t.equal(first, second, 'both replicas hold the same')
})

/** fio writes and verifies, again and again, as long as there are upgrades. Throws what fio says when it has seen an error. */
async function survives(t: Test, volume: LiveVolume, job: readonly string[], flags: readonly string[] = []): Promise<void> {
  const command = ['fio', '--name=verify', '--rw=randwrite', '--iodepth=16', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--rate=8m', '--randrepeat=0', ...job] as const
  const state = {done: false}
  const load = (async () => {
    let runs = 0
    for (; !state.done; runs++) await tool(command, {timeoutMs: 300_000})
    return runs
  })()
  const times: number[] = []
  const upgrades = (async () => {
    for (let round = 0; round < UPGRADES; round++) times.push(await volume.upgradeEngine(flags))
  })()
  try {
    await Promise.race([upgrades, load])
    await upgrades
  } finally {
    state.done = true
    const runs = await load
    t.comment(`${runs} runs of fio; stood still for ms: ${times.join(' ')}`)
  }
}
