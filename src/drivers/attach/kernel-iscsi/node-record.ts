// A record of iscsiadm's: how to log in to one portal of a target. It is made by hand, as what a target says of its own
// portals may not be how it is reached from here. The secrets are written into its file: iscsiadm takes them as arguments
// only, where everybody on the host could read them.
import {readdir, readFile, rename, stat, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {LonghornError} from '../../../lib/errors.js'
import {formatHostPort} from '../../../lib/address.js'
import type {CommandLimits} from '../run-command.js'
import type {IscsiHost} from './iscsi-host.js'

/** Exit codes of iscsiadm, include/iscsi_err.h of open-iscsi. */
export const ISCSIADM = {
  TRANSPORT: 4,
  LOGIN: 5,
  TRANSPORT_TIMEOUT: 8,
  SESSION_EXISTS: 15,
  FATAL_LOGIN: 19,
  NOTHING_FOUND: 21,
  NOT_AUTHORIZED: 24,
} as const

export interface Portal {
  /** An IP address. */
  readonly host: string
  readonly port: number
}

/** Names and values as in iscsid.conf. */
export type Settings = Readonly<Record<string, string>>

/** Selects the record in calls of iscsiadm. */
export function recordArgs(iqn: string, portal: Portal): string[] {
  return ['-m', 'node', '-T', iqn, '-p', formatHostPort(portal)]
}

/** Makes the record, or makes it anew, with these settings besides the host's own. */
export async function makeRecord(host: IscsiHost, iqn: string, portal: Portal, settings: Settings, limits: CommandLimits): Promise<void> {
  const {ok, stderr} = await host.run('iscsiadm', [...recordArgs(iqn, portal), '-o', 'new'], limits)
  if (!ok) throw new LonghornError('IO', `iscsiadm cannot make a record of ${iqn}: ${stderr}`)
  const file = await recordFile(host, iqn, portal)
  if (file === undefined) throw new LonghornError('UNSUPPORTED', `iscsiadm keeps its records where we do not find them (${iqn})`)
  // Beside the folder of all records, where iscsiadm does not look, and readable by root only from its first moment.
  const temporary = join(host.recordFolder(iqn) ?? '', '..', '..', `.longhorn-${iqn}`)
  await writeFile(temporary, withSettings(await readFile(file, 'utf8'), settings), {mode: 0o600})
  await rename(temporary, file)
}

/** Removes it; fine when there is none. */
export async function deleteRecord(host: IscsiHost, iqn: string, portal: Portal, limits: CommandLimits): Promise<void> {
  if (host.recordFolder(iqn) === undefined) return
  const {ok, exitCode, stderr} = await host.run('iscsiadm', [...recordArgs(iqn, portal), '-o', 'delete'], limits)
  if (!ok && exitCode !== ISCSIADM.NOTHING_FOUND) throw new LonghornError('IO', `iscsiadm cannot delete its record of ${iqn}: ${stderr}`)
}

/** The text of a record, `name = value` in each line, with some values replaced or added. */
export function withSettings(text: string, settings: Settings): string {
  const kept = text.split('\n').filter(line => !((/^\s*([^\s=]+)\s*=/.exec(line)?.[1] ?? '') in settings))
  const end = kept.findIndex(line => line.startsWith('# END RECORD'))
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`)
  kept.splice(end === -1 ? kept.length : end, 0, ...lines)
  return kept.join('\n')
}

/** `HOST,PORT`, or `HOST,PORT,GROUP/default` where the portal group is known. */
async function recordFile(host: IscsiHost, iqn: string, portal: Portal): Promise<string | undefined> {
  const folder = host.recordFolder(iqn)
  if (folder === undefined) return undefined
  const start = `${portal.host},${portal.port}`
  const name = (await readdir(folder)).find(entry => entry === start || entry.startsWith(`${start},`))
  if (name === undefined) return undefined
  const path = join(folder, name)
  return (await stat(path)).isDirectory() ? join(path, 'default') : path
}
