// Where things are in a store: upstream's layout, reference backupstore-format section 2.1.
import {createHash} from 'node:crypto'
import {sha512} from '../../lib/sys/sha512.js'
import {isName} from '../target-url.js'

export const VOLUMES = 'backupstore/volumes/'

const SUM = /^[0-9a-f]{64}$/

/** The first 64 hexadecimal digits of SHA-512, which name a block and choose a volume's folder. */
export function shortSum(data: string | Uint8Array): string {
  return createHash('sha512').update(data).digest('hex').slice(0, 64)
}

/** The same of a block, in the thread pool. */
export async function blockSum(block: Uint8Array): Promise<string> {
  return (await sha512(block)).toString('hex', 0, 32)
}

export function isSum(text: string): boolean {
  return SUM.test(text)
}

/** `…/volumes/AA/BB/VOL/` with AA and BB from the sum of the name. */
export function volumeFolder(volume: string): string {
  const sum = shortSum(volume)
  return `${VOLUMES}${sum.slice(0, 2)}/${sum.slice(2, 4)}/${volume}/`
}

export function volumeKey(volume: string): string {
  return `${volumeFolder(volume)}volume.cfg`
}

export function backupsFolder(volume: string): string {
  return `${volumeFolder(volume)}backups/`
}

export function backupKey(volume: string, backup: string): string {
  return `${backupsFolder(volume)}backup_${backup}.cfg`
}

/** The name of a backup from the key of its record; undefined for anything else that lies there. */
export function backupNameOf(key: string): string | undefined {
  const name = /\/backups\/backup_([^/]+)\.cfg$/.exec(key)?.[1]
  return name !== undefined && isName(name) ? name : undefined
}

export function blocksFolder(volume: string): string {
  return `${volumeFolder(volume)}blocks/`
}

export function blockKey(volume: string, sum: string): string {
  if (!isSum(sum)) throw new RangeError(`"${sum}" is not the sum of a block`)
  return `${blocksFolder(volume)}${sum.slice(0, 2)}/${sum.slice(2, 4)}/${sum}.blk`
}

/** The sum from the key of a block, which must lie where that sum belongs; undefined for anything else. */
export function blockSumOf(volume: string, key: string): string | undefined {
  const sum = /\/([0-9a-f]{64})\.blk$/.exec(key)?.[1]
  return sum !== undefined && blockKey(volume, sum) === key ? sum : undefined
}

export function locksFolder(volume: string): string {
  return `${volumeFolder(volume)}locks/`
}

/** Ours: the lock of whoever wants no second backup of the volume beside his. Upstream ignores other folders of a volume. */
export function oneBackupFolder(volume: string): string {
  return `${volumeFolder(volume)}longhorn-one-backup/`
}

/** What a crash leaves of a write to a store in a file system, upstream's and ours. */
export function isLeftover(key: string): boolean {
  return /\.tmp\.[^/]+$/.test(key)
}
