import {hostAttacher} from '../../src/cli/host-attacher.js'
import {isInstalled} from '../../src/drivers/attach/run-command.js'
import {LonghornError} from '../../src/lib/errors.js'
import {findNbdTools} from './nbd-user.js'

/** The best first: a file system on a block device, foreign NBD clients, our own client. */
export type Frontend = 'blockdev' | 'nbd' | 'socket'

export type Choice = {readonly frontend: Frontend; readonly ok: true; readonly with: string} | {readonly frontend: Frontend; readonly ok: false; readonly reason: string}

const FILE_SYSTEM_TOOLS = ['mkfs.ext4', 'e2fsck', 'mount', 'umount', 'sha256sum']

/**
 * What this machine can do of what is wanted, in the order of preference; the last one is always possible. Changes
 * nothing. Throws UNSUPPORTED when one is wanted and cannot be had.
 */
export async function frontendChoices(wanted: Frontend | 'auto'): Promise<Choice[]> {
  const all: Choice[] = [await blockDevice(), await nbd(), {frontend: 'socket', ok: true, with: "Longhorn's data protocol, and a client of our own"}]
  if (wanted === 'auto') return all
  const choice = all.find(({frontend}) => frontend === wanted)!
  if (!choice.ok) throw new LonghornError('UNSUPPORTED', `--frontend ${wanted} is not possible here: ${choice.reason}`)
  return [choice]
}

async function blockDevice(): Promise<Choice> {
  const frontend = 'blockdev'
  const ways = await hostAttacher().available()
  if (!ways.some(({ok}) => ok)) return {frontend, ok: false, reason: ways.flatMap(way => (way.ok ? [] : [way.reason])).join('; ')}
  const missing = await notInstalled(FILE_SYSTEM_TOOLS)
  if (missing.length > 0) return {frontend, ok: false, reason: `not installed: ${missing.join(', ')}`}
  return {frontend, ok: true, with: 'a block device with an ext4 file system on it'}
}

async function nbd(): Promise<Choice> {
  const tools = await findNbdTools()
  if (tools === undefined) return {frontend: 'nbd', ok: false, reason: 'neither nbdcopy (package libnbd-bin) nor qemu-io and qemu-img (qemu-utils) are installed'}
  const names = [...new Set([tools.writer, tools.reader])].join(' and ')
  return {frontend: 'nbd', ok: true, with: `a network block device, used by ${names}`}
}

async function notInstalled(programs: readonly string[]): Promise<string[]> {
  const found = await Promise.all(programs.map(isInstalled))
  return programs.filter((_, index) => found[index] !== true)
}
