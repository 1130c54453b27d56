import {Flags} from '@oclif/core'
import {backupKeyText, KEY_VARIABLE, loadBackupKeys} from '../backup/encryption/backup-keys.js'
import type {BackupStore} from '../backup/store/backup-store.js'
import {parseTargetUrl, selecting, type TargetUrl} from '../backup/target-url.js'
import type {TransferProgress} from '../backup/transfer-progress.js'
import {LonghornError} from '../lib/errors.js'
import {formatSize} from '../lib/sizes.js'
import {startProgress, type Progress} from './progress.js'

/** For commands that move blocks. */
export const concurrencyFlag = {
  concurrency: Flags.integer({default: 5, min: 1, max: 64, helpValue: 'N', description: 'blocks that are moved at once'}),
}

/** What is meant in a store: the URL of a backup, of a volume, or of the store itself. */
export type Selected = 'backup' | 'volume' | 'store'

/** Opens the store of a URL; credentials come from the environment. Throws USAGE when the URL selects less than is needed. */
export async function withStore<T>(text: string, needed: Selected, use: (store: BackupStore, url: TargetUrl & {volume: string; backup: string}) => Promise<T>): Promise<T> {
  const url = parseTargetUrl(text)
  if (needed !== 'store' && url.volume === undefined) throw new LonghornError('USAGE', `${url.target}: which volume? Expected '${selecting(url.target, {volume: 'VOL'})}'`)
  if (needed === 'backup' && url.backup === undefined) throw new LonghornError('USAGE', `${url.target}: which backup? Expected '${selecting(url.target, {backup: 'NAME', volume: 'VOL'})}'`)
  const {openStore} = await import('../backup/store/open-store.js')
  await using store = await openStore(url, {env: process.env})
  return await use(store, {...url, volume: url.volume ?? '', backup: url.backup ?? ''})
}

/** What a replica that is to reach a store is told: upstream's variables, as far as they are set here, and the keys of backups themselves, as files of this host are not the replica's. USAGE for keys that are none. */
export function storeCredentials(): Map<string, string> {
  const keys = backupKeyText(process.env)
  const names = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN', 'AWS_ENDPOINTS', 'AWS_CERT', 'AWS_REGION', 'AWS_DEFAULT_REGION', 'VIRTUAL_HOSTED_STYLE', 'LONGHORN_NFS_CLIENT']
  // In capitals, as upstream sends them.
  const proxies = ['HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']
  const set = [...names.map(name => [name, process.env[name]] as const), ...proxies.map(name => [name, process.env[name] || process.env[name.toLowerCase()]] as const)]
  const found = new Map(set.filter((entry): entry is [string, string] => entry[1] !== undefined))
  return keys === undefined ? found : found.set(KEY_VARIABLE, keys)
}

/** How blocks are to be stored: with the key of this environment in it where there is one, so that a replica that does not know encryption refuses and does not store them in clear. USAGE for keys that are none. */
export async function blockFormFor(compression: string): Promise<string> {
  const keyId = loadBackupKeys(process.env)?.current.id
  if (keyId === undefined) return compression
  const {formatBlockForm, parseBlockForm} = await import('../backup/format/block-form.js')
  return formatBlockForm({...parseBlockForm(compression, 'the compression method'), keyId})
}

/** Shows how far something is: percent, rate and the time that is left. Undefined where nothing is to be shown. */
export async function startTransferProgress(what: string, quiet: boolean): Promise<{onProgress: (progress: TransferProgress) => void; done: () => void} & Disposable> {
  if (quiet) return {onProgress: () => undefined, done: () => undefined, [Symbol.dispose]() {}}
  const shown: Progress = await startProgress(what)
  const startedMs = performance.now()
  let last = what
  return {
    onProgress(progress) {
      last = `${what}: ${describe(progress, performance.now() - startedMs)}`
      shown.update(last)
    },
    done: () => shown.succeed(last),
    [Symbol.dispose]: () => shown[Symbol.dispose](),
  }
}

function describe({blocks, totalBlocks, volumeBytes, objectBytes}: TransferProgress, elapsedMs: number): string {
  const percent = totalBlocks === 0 ? 100 : Math.floor((100 * blocks) / totalBlocks)
  const rate = (volumeBytes / Math.max(1, elapsedMs)) * 1000
  const leftS = blocks === 0 ? undefined : Math.ceil(((totalBlocks - blocks) / blocks) * (elapsedMs / 1000))
  return `${percent} %, ${formatSize(volumeBytes)} (${formatSize(objectBytes)} in the store), ${formatSize(rate)}/s${leftS === undefined || leftS === 0 ? '' : `, ${leftS} s left`}`
}
