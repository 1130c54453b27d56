import {formatHostPort, parseAddress, type TcpAddress} from '../../lib/address.js'
import {isKind, LonghornError} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {toInteger, toText} from '../../protocol/grpc/fields.js'
import type {FileSendRequest, FilesSyncRequest, SnapshotCloneRequest, VolumeExportRequest} from '../../protocol/proto/generated/sync-agent.js'
import {snapshotFile} from '../layer-names.js'
import type {Replica} from '../replica.js'
import {cloneSnapshot} from './clone.js'
import {FilesSync, sourcesOf} from './files-sync.js'
import {Job} from './job-status.js'
import {LayerSink} from './layer-sink.js'
import {MetaSink} from './meta-sink.js'
import type {RebuildTarget} from './rebuild-target.js'
import type {Receiver} from './receiver.js'
import type {ReceiverPorts} from './receiver-ports.js'
import {currentChecksum, type RecordedChecksum} from './recorded-checksum.js'
import {sendFile} from './send-file.js'
import {openFileSource, openViewSource, type SendSource} from './send-source.js'
import {toTransferFile} from './transfer-names.js'

/** Where a request does not say, as upstream's. */
const DEFAULT_TIMEOUT_S = 5

export interface SyncAgentOptions {
  readonly replica: Replica
  readonly target: RebuildTarget
  readonly ports: ReceiverPorts
  readonly volumeName: string | undefined
  readonly log: Log
}

/** What a replica does with files of other replicas, for upstream's engines: sends its own, receives theirs. */
export class SyncAgent {
  readonly rebuild = new Job('rebuilding')
  readonly clone = new Job('cloning')
  /** Of the last rebuild: `tcp://host:port`. */
  rebuildSources: readonly string[] = []
  /** Of the last clone. */
  cloneSource = {address: '', snapshot: ''}
  readonly #options: SyncAgentOptions
  readonly #closing = new AbortController()
  readonly #launched = new Set<Receiver>()

  constructor(options: SyncAgentOptions) {
    this.#options = options
  }

  /** Sends a file to a receiver. Resolves when that has all of it. */
  sendFile(request: FileSendRequest, signal: AbortSignal): Promise<void> {
    const file = toTransferFile(request.fromFileName.trim(), 'FileSend: from_file_name')
    const {directory} = this.#options.replica
    return this.#transfer(`sending ${file.name}`, async () => {
      const recorded = request.fastSync && file.kind === 'data' ? await this.#recorded(file.layer) : undefined
      await this.#send(await openFileSource(directory, file), request, file.kind === 'data', recorded, signal)
    })
  }

  /** Sends the volume as it was at a snapshot, as one file. */
  exportVolume(request: VolumeExportRequest, signal: AbortSignal): Promise<void> {
    const layer = snapshotFile(toText(request.snapshotFileName, 'VolumeExport: snapshot_file_name'))
    return this.#transfer(`exporting ${layer}`, async () => {
      await this.#send(await openViewSource(this.#options.replica.directory, layer), request, true, undefined, signal)
    })
  }

  /** Opens a port for one file. Resolves to the port. Whoever sends the file is told to by somebody else. */
  async launchReceiver(fileName: string): Promise<number> {
    const {replica, target, ports, log} = this.#options
    const file = toTransferFile(toText(fileName, 'ReceiverLaunch: to_file_name'), 'ReceiverLaunch: to_file_name')
    await target.checkMayReplace(file.layer)
    const {directory} = await replica.describe()
    if (directory === undefined) throw new LonghornError('CONFLICT', `there is no replica in ${replica.directory}`)
    const sink =
      file.kind === 'data'
        ? new LayerSink(replica.directory, file.layer, directory.volume.sizeBytes)
        : new MetaSink(file.name, meta => target.describeLayer(file.layer, meta))
    const what = `receiving ${file.name}`
    this.#checkNoPurge()
    if (replica.transfers.has(what)) throw new LonghornError('BUSY', `${file.name} is being received already`)
    replica.transfers.add(what)
    const receiver = await ports.start({sink, log}).catch((error: unknown) => {
      replica.transfers.delete(what)
      throw error
    })
    if (file.kind === 'data') target.setComplete(false)
    this.#launched.add(receiver)
    const ended = (): void => {
      replica.transfers.delete(what)
      this.#launched.delete(receiver)
    }
    receiver.done.then(ended, (error: unknown) => {
      ended()
      log.warn({err: error, file: file.name}, 'a file was not received')
    })
    return receiver.port
  }

  /** Has the files of other replicas sent here, as part of a rebuild. Resolves when all are here and durable. */
  async syncFiles(request: FilesSyncRequest, signal: AbortSignal): Promise<void> {
    const {replica, target, ports, volumeName, log} = this.#options
    // An engine of ours has the replica fetch what it lacks, and leaves nothing to its client.
    if (replica.directed && request.syncFileInfoList.length === 0) return
    const rebuildSources = sourcesOf(request)
    await target.check()
    const {directory} = await replica.describe()
    await this.#transfer('a rebuild', () =>
      this.rebuild.run(async onProgress => {
        this.rebuildSources = rebuildSources
        target.setComplete(false)
        const ended = AbortSignal.any([signal, this.#closing.signal])
        const sizeBytes = directory!.volume.sizeBytes
        const sync = new FilesSync(request, {directory: replica.directory, sizeBytes, ports, volumeName, log, signal: ended, onProgress})
        log.info({files: request.syncFileInfoList.length, from: rebuildSources}, 'receiving the files of a rebuild')
        await target.describeLayers(await sync.run())
        target.setComplete(true)
        log.info('all files of the rebuild are here')
      }),
    )
  }

  /** See cloneSnapshot(). */
  cloneSnapshot(request: SnapshotCloneRequest, signal: AbortSignal): Promise<void> {
    const {replica, target, ports, log} = this.#options
    return this.#transfer('a clone', () =>
      this.clone.run(async onProgress => {
        this.cloneSource = {address: request.fromAddress, snapshot: request.snapshotFileName}
        await cloneSnapshot(request, {replica, target, ports, log, signal: AbortSignal.any([signal, this.#closing.signal]), onProgress})
      }),
    )
  }

  /** Forgets what has come of what is over. */
  reset(): void {
    this.rebuild.reset()
    this.clone.reset()
    this.#options.replica.resetStatus()
  }

  /** Breaks off everything. Safe twice. */
  close(): void {
    const reason = new LonghornError('INTERRUPTED', 'the replica is shutting down')
    this.#closing.abort(reason)
    for (const receiver of this.#launched) receiver.destroy(reason)
  }

  async #send(
    source: SendSource,
    {host, port, fileSyncHttpClientTimeout}: Pick<FileSendRequest, 'host' | 'port' | 'fileSyncHttpClientTimeout'>,
    directIo: boolean,
    recorded: RecordedChecksum | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      const to = toReceiver(host, port)
      const timeoutS = toInteger(fileSyncHttpClientTimeout, 0, 86_400, 'file_sync_http_client_timeout') || DEFAULT_TIMEOUT_S
      this.#options.log.info({file: source.name, to: formatHostPort(to)}, 'sending a file')
      await sendFile(source, {to, timeoutMs: timeoutS * 1000, directIo, recorded, signal: AbortSignal.any([signal, this.#closing.signal])})
    } finally {
      await source.close()
    }
  }

  /** What is recorded of a layer as it is now; undefined when that is nothing, so that the data decides. */
  async #recorded(layer: string): Promise<RecordedChecksum | undefined> {
    try {
      return await currentChecksum(this.#options.replica.directory, layer)
    } catch (error) {
      if (!isKind(error, 'NOT_FOUND')) this.#options.log.info({layer, reason: String(error)}, 'no current checksum')
      return undefined
    }
  }

  #checkNoPurge(): void {
    const {replica} = this.#options
    if (replica.purgeStatus.state === 'in_progress') throw new LonghornError('BUSY', `the replica in ${replica.directory} is purging snapshots: try again when that is done`)
  }

  /** Runs what a purge would spoil, or would be spoilt by. BUSY while there is a purge. */
  async #transfer<T>(what: string, work: () => Promise<T>): Promise<T> {
    const {replica} = this.#options
    this.#checkNoPurge()
    const entry = `${what} (${++transfers})`
    replica.transfers.add(entry)
    try {
      return await work()
    } finally {
      replica.transfers.delete(entry)
    }
  }
}

/** Tells apart transfers of the same file. */
let transfers = 0

function toReceiver(host: string, port: number): TcpAddress {
  const plain = toText(host, 'host').replace(/^tcp:\/\//, '')
  const address = parseAddress(formatHostPort({host: plain.replace(/^\[(.*)\]$/, '$1'), port: toInteger(port, 1, 65_535, 'port')}))
  return address as TcpAddress
}
