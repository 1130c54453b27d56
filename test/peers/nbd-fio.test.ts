import {join} from 'node:path'
import t, {type Test} from 'tap'
import {shortDir} from '../support/short-dir.js'
import {memoryServer, missing, run, runs} from '../engine/frontends/nbd/support/programs.js'

const MIB = 1024 * 1024

/** A reason to skip when this fio cannot speak NBD. */
async function withoutNbd(): Promise<string | false> {
  const absent = missing('fio')
  if (absent !== false) return absent
  const {stdout} = await run('fio', ['--enghelp'])
  return /^\s*nbd$/m.test(stdout) ? false : 'this fio is built without its nbd engine'
}

const skip = await withoutNbd()

/** Random writes of all sizes, read back and compared by fio; several jobs on connections of their own. */
async function verifies(t: Test, uri: string, ...args: string[]): Promise<void> {
  const common = ['--name=verify', '--ioengine=nbd', `--uri=${uri}`, '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--group_reporting', '--output-format=json', '--randrepeat=0']
  const output = await runs(t, 'fio', [...common, ...args])
  const {jobs} = JSON.parse(output.slice(output.indexOf('{'))) as {jobs: {error: number; read: {total_ios: number}; write: {total_ios: number}}[]}
  t.ok(jobs.every(job => job.error === 0 && job.read.total_ios > 0 && job.write.total_ios > 0))
}

for (const transport of ['unix', 'tcp'] as const) {
  t.test(`fio verifies over ${transport}`, {skip}, async t => {
    const address = transport === 'unix' ? `unix:${join(shortDir(t), 's')}` : 'tcp://127.0.0.1:0'
    const uri = await memoryServer(t, address, 256 * MIB)
    await verifies(t, uri, '--rw=randwrite', '--bs=4k', '--iodepth=32', '--size=32m')
    await verifies(t, uri, '--rw=randwrite', '--bsrange=512-1m', '--bs_unaligned', '--iodepth=16', '--size=64m')
    await verifies(t, uri, '--rw=write', '--bs=4m', '--iodepth=8', '--size=128m', '--fsync=4')
    await verifies(t, uri, '--rw=randwrite', '--bsrange=512-256k', '--numjobs=4', '--size=32m', '--offset_increment=64m', '--iodepth=16')
  })
}
