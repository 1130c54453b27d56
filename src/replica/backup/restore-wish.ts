import {openStore} from '../../backup/store/open-store.js'
import type {BackupStore} from '../../backup/store/backup-store.js'
import {backupUrl, parseTargetUrl, type TargetUrl} from '../../backup/target-url.js'
import {LonghornError} from '../../lib/errors.js'
import {toInteger, toText} from '../../protocol/grpc/fields.js'
import type {BackupRestoreRequest} from '../../protocol/proto/generated/sync-agent.js'
import {isHeadName, layerFileOf} from '../layer-names.js'

const MAX_WORKERS = 64

/** What a BackupRestore asks for, checked. */
export interface RestoreWish {
  /** As it was asked for. */
  readonly url: string
  readonly volume: string
  readonly backup: string
  /** As it is recorded: in one way to write it, without secrets. */
  readonly recorded: string
  /** File name of the layer that it is to become. */
  readonly layer: string
  readonly concurrency: number
  /** Wait to be finished. */
  readonly hold: boolean
  /** With hold: what the volume holds. */
  readonly base: {readonly backup: string; readonly layer: string} | undefined
  openStore(): Promise<BackupStore>
}

/** Throws USAGE. */
export function toRestoreWish(request: BackupRestoreRequest): RestoreWish {
  const url = toText(request.backup, 'BackupRestore: backup')
  const {target, volume, backup} = backupOf(url, 'backup')
  const layer = layerFileOf(toText(request.snapshotDiskName, 'BackupRestore: snapshot_disk_name'))
  if (isHeadName(layer)) throw new LonghornError('USAGE', `BackupRestore: snapshot_disk_name is ${layer}: a backup cannot be restored into a head`)
  if ((request.baseBackup === '') !== (request.baseLayer === '')) throw new LonghornError('USAGE', 'BackupRestore: base_backup and base_layer belong together')
  const base = request.baseBackup === '' ? undefined : {backup: backupOf(request.baseBackup, 'base_backup'), layer: layerFileOf(request.baseLayer)}
  return {
    url,
    volume,
    backup,
    recorded: backupUrl(target.target, volume, backup),
    layer,
    concurrency: toInteger(request.concurrentLimit, 0, MAX_WORKERS, 'BackupRestore: concurrent_limit') || 1,
    hold: request.hold,
    base: base?.backup.volume === volume ? {backup: base.backup.backup, layer: base.layer} : undefined,
    openStore: () => openStore(target, {env: {...process.env, ...Object.fromEntries(request.credential)}}),
  }
}

/** The volume and the backup that a URL names. Throws USAGE when it does not. */
export function backupOf(url: string, field: string): {target: TargetUrl; volume: string; backup: string} {
  const target = parseTargetUrl(url)
  const {volume, backup} = target
  if (volume === undefined || backup === undefined) throw new LonghornError('USAGE', `BackupRestore: ${field} is ${target.target}: which backup? Expected '${target.target}?backup=NAME&volume=VOL'`)
  return {target, volume, backup}
}
