// This program in the guest: attaching and detaching there as a person does.
import {LONGHORN_IN_GUEST} from './program-image.js'
import type {Guest} from './guest.js'

/** Of a command in an emulated machine: starting Node.js alone takes many seconds. */
const COMMAND_MS = 240_000

export interface Attached {
  readonly way: string
  readonly device: string
  readonly node: {readonly name: string}
}

export async function attach(guest: Guest, volume: string, endpoint: string, flags = ''): Promise<Attached> {
  return JSON.parse(await guest.run(`${LONGHORN_IN_GUEST} volume attach ${volume} --endpoint '${endpoint}' ${flags} --json`, COMMAND_MS)) as Attached
}

/** The error code of an attach that has to fail. */
export async function failToAttach(guest: Guest, volume: string, endpoint: string, flags = ''): Promise<string> {
  const {status, stdout} = await guest.attempt(`${LONGHORN_IN_GUEST} volume attach ${volume} --endpoint '${endpoint}' ${flags} --json`, COMMAND_MS)
  if (status === 0) throw new Error(`attached, which was to fail: ${stdout}`)
  return (JSON.parse(stdout) as {error: {code: string}}).error.code
}

export async function detach(guest: Guest, volume: string, flags = ''): Promise<void> {
  await guest.run(`${LONGHORN_IN_GUEST} volume detach ${volume} ${flags} --json`, COMMAND_MS)
}

/** What attachments have left in the guest, one line each. */
export async function leftovers(guest: Guest): Promise<string[]> {
  const script = `
    shopt -s nullglob
    for path in /dev/longhorn/* /run/longhorn/attach/volumes/* /run/longhorn/attach/locks/* /tmp/steps/*/*/* /sys/block/nbd*/backend /sys/class/iscsi_session/*; do echo $path; done
    find /etc/iscsi/nodes /var/lib/iscsi/nodes -type f 2>/dev/null
    find /etc/iscsi -name '.longhorn*'
    pgrep -af keeper-main || true`
  return (await guest.run(script)).split('\n').filter(Boolean)
}

export async function expectNothingLeft(guest: Guest): Promise<void> {
  const left = await leftovers(guest)
  if (left.length > 0) throw new Error(`left behind:\n${left.join('\n')}`)
}
