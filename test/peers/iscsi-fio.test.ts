// fio's writes, read back and compared by fio, against a target on a device in memory in a process of its own.
import {spawn} from 'node:child_process'
import {existsSync} from 'node:fs'
import {join} from 'node:path'
import t from 'tap'
import {startTarget} from '../engine/frontends/iscsi/transport/support/target-process.js'
import {shortDir} from '../support/short-dir.js'
import {until} from '../support/until.js'
import {LEASH} from './support/daemon.js'
import {verifyByFio, withoutFio} from './support/fio.js'
import {withoutQemuIscsi} from './support/qemu-iscsi.js'
import {attempt, missing, tool} from './support/tool.js'

const SIZE_MIB = 64
const JOBS = [
  ['--rw=randwrite', '--bs=4k', '--iodepth=32', '--size=16m'],
  ['--rw=randwrite', '--bsrange=512-1m', '--bs_unaligned', '--iodepth=16', '--size=32m'],
  ['--rw=write', '--bs=4m', '--iodepth=8', '--size=64m', '--fsync=4'],
  ['--rw=randwrite', '--bsrange=512-256k', '--numjobs=4', '--size=8m', '--offset_increment=16m', '--iodepth=16'],
]

async function withoutLibiscsi(): Promise<string | false> {
  const absent = await missing('fio')
  if (absent !== false) return absent
  const {stdout} = await attempt(['fio', '--enghelp'])
  return /^\s*libiscsi$/m.test(stdout) ? false : 'this fio is built without its libiscsi engine'
}

t.test('by its libiscsi engine', {skip: await withoutLibiscsi()}, async t => {
  const uri = await startTarget(t, SIZE_MIB)
  for (const job of JOBS) {
    const common = ['--name=verify', '--ioengine=libiscsi', `--filename=${uri.replaceAll(':', '\\:')}`, '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--randrepeat=0'] as const
    t.match(await tool(['fio', ...common, ...job]), /err= 0/)
  }
})

/** What Debian's fio can do: its NBD engine speaks to QEMU's NBD server, which passes its requests on as an iSCSI initiator. */
t.test('by its NBD engine, through qemu-nbd', {skip: (await withoutQemuIscsi()) || (await withoutFio())}, async t => {
  const uri = await startTarget(t, SIZE_MIB)
  const folder = shortDir(t)
  const socket = join(folder, 's')
  // Written when it listens.
  const pidFile = join(folder, 'pid')
  const options = ['--persistent', '--shared=4', '--format=raw', '--cache=none', '--discard=unmap', `--pid-file=${pidFile}`, `--socket=${socket}`]
  const [program = '', ...args] = [...LEASH, 'qemu-nbd', ...options, uri]
  const bridge = spawn(program, args, {stdio: 'inherit'})
  const ended = new Promise(resolve => bridge.on('close', resolve))
  t.teardown(async () => {
    bridge.kill('SIGTERM')
    await ended
  })
  await until(() => existsSync(pidFile), 'qemu-nbd listens')
  for (const job of JOBS) await verifyByFio(`nbd+unix:///?socket=${socket}`, ...job)
  t.pass('fio found all it had written')
})
