// What every way to attach promises (test/drivers/attach/attach-contract.ts), kept by the kernel's NBD client, which this machine may not have.
import type {Guest} from './guest.js'
import {NODE_IN_GUEST, PROGRAM_IN_GUEST} from './program-image.js'
import type {Report} from './report.js'

const FILES = ['kernel-nbd-contract', 'kernel-nbd-faults']
const FILE_MS = 60 * 60_000

export async function contract(report: Report, guest: Guest): Promise<void> {
  report.section('The contract of ways to attach, by kernel-nbd')
  for (const file of FILES) {
    await report.check(file, async () => {
      // Not /tmp, whose file system has no direct I/O.
      const script = `modprobe nbd; cd ${PROGRAM_IN_GUEST}; TMPDIR=/var/tmp TAP_TIMEOUT=0 ${NODE_IN_GUEST} dist/test/drivers/attach/${file}.test.js`
      const {status, stdout, stderr} = await guest.attempt(script, FILE_MS)
      const failures = stdout.split('\n').filter(line => /^ *not ok/.test(line))
      const passed = [...stdout.matchAll(/^ok /gm)].length
      if (status !== 0 || passed === 0) throw new Error([...failures, stderr.slice(-2000), failures.length > 0 ? '' : stdout.slice(-2000)].join('\n'))
      return `${passed} tests`
    })
  }
}
