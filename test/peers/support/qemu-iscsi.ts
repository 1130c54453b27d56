import {attempt, missing} from './tool.js'

/** Why QEMU's programs cannot be used as initiators, or false: their iSCSI is a module, in a package of its own. */
export async function withoutQemuIscsi(): Promise<string | false> {
  const absent = await missing('qemu-img', 'qemu-io', 'qemu-nbd')
  if (absent !== false) return absent
  const {stdout, stderr} = await attempt(['qemu-img', 'info', 'iscsi://127.0.0.1:1/iqn.2000-01.org.example:none/1'])
  return /Unknown protocol|not find module|Could not open module/i.test(stdout + stderr) && 'not installed: qemu-block-extra'
}

/** The disk of an endpoint with a name for the initiator: with the plain URL all on a machine have the same one. */
export function asInitiator(endpoint: string, name: string): string {
  const {host, pathname} = new URL(endpoint)
  const [, target, lun] = pathname.split('/')
  const options = {driver: 'iscsi', transport: 'tcp', portal: host, target, lun: Number(lun), 'initiator-name': `iqn.2000-01.org.example:${name}`}
  return `json:${JSON.stringify({driver: 'raw', file: options})}`
}
