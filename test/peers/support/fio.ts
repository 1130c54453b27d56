import {attempt, missing, tool} from './tool.js'

/** A reason to skip when there is no fio, or one that cannot speak NBD. */
export async function withoutFio(): Promise<string | false> {
  const absent = await missing('fio')
  if (absent !== false) return absent
  const {stdout} = await attempt(['fio', '--enghelp'])
  return /^\s*nbd$/m.test(stdout) ? false : 'this fio is built without its nbd engine'
}

/** Arguments of a job that writes what it can recognise, and reads all of it back. */
export function verifyingJob(uri: string): [string, ...string[]] {
  return ['fio', '--name=verify', '--ioengine=nbd', `--uri=${uri}`, '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0', '--group_reporting', '--output-format=json', '--randrepeat=0']
}

/** Lets fio write and verify. Throws with what it said unless it found all as it should be. */
export async function verifyByFio(uri: string, ...args: readonly string[]): Promise<void> {
  const output = await tool([...verifyingJob(uri), ...args])
  const {jobs} = JSON.parse(output.slice(output.indexOf('{'))) as {jobs: {error: number; read: {total_ios: number}; write: {total_ios: number}}[]}
  if (jobs.some(job => job.error !== 0 || job.read.total_ios === 0 || job.write.total_ios === 0)) throw new Error(`fio ${args.join(' ')}: ${output}`)
}
