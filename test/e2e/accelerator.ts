import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {accessSync, constants} from 'node:fs'
import {setTimeout as sleep} from 'node:timers/promises'

/** A kernel on real hardware prints its first line within a second. */
const PROBE_TIMEOUT_MS = 15_000

/**
 * How fast the guest can be. The device being there is no proof that it works: in a virtual machine that does not really
 * have it, a guest can hang at its first instruction. So a kernel is started and has to say something.
 */
export async function findAccelerator(kernel: string): Promise<'kvm' | 'tcg'> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
  } catch {
    return 'tcg'
  }
  const machine = ['-nodefaults', '-no-user-config', '-no-reboot', '-nographic', '-accel', 'kvm', '-cpu', 'host', '-m', '256', '-serial', 'stdio']
  const qemu = spawn('qemu-system-x86_64', [...machine, '-kernel', kernel, '-append', 'console=ttyS0 panic=-1'], {stdio: ['ignore', 'pipe', 'ignore']})
  const exited = once(qemu, 'close')
  const spoke = new Promise<true>(resolve => {
    let said = ''
    qemu.stdout.setEncoding('latin1').on('data', (text: string) => {
      said += text
      if (said.includes('Linux version')) resolve(true)
    })
  })
  const works = await Promise.race([spoke, exited.then(() => false), sleep(PROBE_TIMEOUT_MS, false, {ref: false})])
  qemu.kill('SIGKILL')
  await exited
  return works ? 'kvm' : 'tcg'
}
