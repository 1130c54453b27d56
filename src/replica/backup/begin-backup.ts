// The part of a backup that needs the code for it: loaded with the first one.
import {startBackup, type StartedBackup} from '../../backup/create.js'
import {wantsFull} from '../../backup/format/backup-record.js'
import {parseQuantity} from '../../backup/format/quantity.js'
import {openStore} from '../../backup/store/open-store.js'
import {checkName, parseTargetUrl} from '../../backup/target-url.js'
import type {OnProgress} from '../../backup/transfer-progress.js'
import type {Cleanup} from '../../lib/cleanup.js'
import {LonghornError} from '../../lib/errors.js'
import {toInteger} from '../../protocol/grpc/fields.js'
import type {BackupCreateRequest} from '../../protocol/proto/generated/sync-agent.js'
import {SnapshotSource} from './snapshot-source.js'

const MAX_WORKERS = 64

interface Beginning {
  readonly name: string
  readonly onProgress: OnProgress
  readonly signal: AbortSignal
}

/** Opens the snapshot of a replica and the store, and begins; both belong to `owned`. Throws what startBackup() does; USAGE for a request that makes no sense. */
export async function beginBackup(directory: string, request: BackupCreateRequest, {name, onProgress, signal}: Beginning, owned: Cleanup): Promise<StartedBackup & {readonly to: string}> {
  const options = optionsOf(request)
  const source = owned.add(await SnapshotSource.open(directory, request.snapshotFileName))
  const store = owned.add(await openStore(parseTargetUrl(request.backupTarget), {env: {...process.env, ...Object.fromEntries(request.credential)}}))
  return {...(await startBackup(source, store, {...options, backup: name, onProgress, signal})), to: store.url}
}

function optionsOf(request: BackupCreateRequest) {
  const size = request.parameters.get('backup-block-size') ?? ''
  const blockBytes = size === '' ? undefined : parseQuantity(size)
  if (size !== '' && blockBytes === undefined) throw new LonghornError('USAGE', `BackupCreate: backup-block-size is "${size}": expected bytes`)
  return {
    volume: checkName(request.volumeName, 'volume'),
    snapshot: request.snapshotFileName,
    labels: labelsOf(request.labels),
    compressionMethod: request.compressionMethod === '' ? undefined : request.compressionMethod,
    blockBytes: blockBytes === 0 ? undefined : blockBytes,
    concurrency: toInteger(request.concurrentLimit, 0, MAX_WORKERS, 'BackupCreate: concurrent_limit') || 1,
    full: wantsFull(request.parameters),
    exclusive: request.exclusive,
    backingImage: {name: request.backingImageName, checksum: request.backingImageChecksum},
    storageClassName: request.storageClassName,
  }
}

function labelsOf(texts: readonly string[]): Record<string, string> | null {
  if (texts.length === 0) return null
  return Object.fromEntries(
    texts.map(text => {
      const at = text.indexOf('=')
      if (at < 1) throw new LonghornError('USAGE', `BackupCreate: label "${text}": expected KEY=VALUE`)
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}
