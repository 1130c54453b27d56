import {setTimeout as sleep} from 'node:timers/promises'
import {formatAddress, parseAddress, type TcpAddress} from '../../lib/address.js'
import {asError, LonghornError, messageOf} from '../../lib/errors.js'
import type {Log} from '../../lib/log.js'
import {toSize} from '../../protocol/grpc/fields.js'
import type {FilesSyncRequest} from '../../protocol/proto/generated/sync-agent.js'
import type {LayerMeta} from '../layer-meta.js'
import {LayerSink} from './layer-sink.js'
import {MetaSink} from './meta-sink.js'
import type {ReceiverPorts} from './receiver-ports.js'
import {recordChecksum} from './recorded-checksum.js'
import {syncAgentAt, type SyncAgentClient} from './sync-agent-client.js'
import {toTransferFile, type TransferFile} from './transfer-names.js'

/** As upstream's. */
const ATTEMPTS = 3
const RETRY_MS = 1000

/** How many files travel at a time: many are small and wait for the disk and the network in turn. */
const AT_ONCE = 4

/** Upstream's, for one file. */
const DEFAULT_FILE_MS = 24 * 3600 * 1000

interface SyncFile {
  readonly from: TransferFile
  readonly to: TransferFile
  /** Space on disk at the source, in bytes: what progress is measured by. */
  readonly actualBytes: number
}

export interface FilesSyncOptions {
  readonly directory: string
  /** Size of the volume, in bytes: no layer is larger. */
  readonly sizeBytes: number
  readonly ports: ReceiverPorts
  readonly volumeName: string | undefined
  readonly log: Log
  readonly signal: AbortSignal
  /** Percent. */
  readonly onProgress: (percent: number) => void
}

/** Where a request wants files from: `tcp://host:port`, each once. */
export function sourcesOf({fromAddressMap, fromAddress}: FilesSyncRequest): string[] {
  const given = fromAddressMap.size > 0 ? [...fromAddressMap.keys()] : fromAddress === '' ? [] : [fromAddress]
  if (given.length === 0) throw new LonghornError('USAGE', 'FilesSync: from_address_map names no replica')
  return [...new Set(given.map(text => formatAddress(tcpAddress(text))))]
}

/**
 * Has the files of a request sent here by other replicas, and receives them. The data of the layers is durable when this resolves; the
 * descriptions are only returned, as they must not be in the directory before that. A file that fails is tried again,
 * from another replica if there is one.
 */
export class FilesSync {
  readonly #options: FilesSyncOptions
  readonly #request: FilesSyncRequest
  readonly #files: readonly SyncFile[]
  readonly #metas = new Map<string, LayerMeta>()
  readonly #received = new Map<SyncFile, number>()
  readonly #totalBytes: number

  /** Throws USAGE for names that cannot be. */
  constructor(request: FilesSyncRequest, options: FilesSyncOptions) {
    this.#options = options
    this.#request = request
    this.#files = request.syncFileInfoList.map(info => ({
      from: toTransferFile(info.fromFileName, 'FilesSync: from_file_name'),
      to: toTransferFile(info.toFileName, 'FilesSync: to_file_name'),
      actualBytes: toSize(info.actualSize, 'FilesSync: actual_size'),
    }))
    this.#totalBytes = this.#files.reduce((sum, {actualBytes}) => sum + actualBytes, 0)
    checkFiles(this.#files)
  }

  /** Resolves to the descriptions, by the file name of their layers. */
  async run(): Promise<ReadonlyMap<string, LayerMeta>> {
    const abort = new AbortController()
    const signal = AbortSignal.any([abort.signal, this.#options.signal])
    const sources = sourcesOf(this.#request).map(address => syncAgentAt(tcpAddress(address), this.#options.volumeName))
    const queue = [...this.#files].sort((a, b) => b.actualBytes - a.actualBytes).entries()
    let failure: Error | undefined
    const work = async (): Promise<void> => {
      for (const [index, file] of queue) await this.#persist(file, index, sources, signal)
    }
    try {
      const workers = Math.max(1, Math.min(AT_ONCE, this.#options.ports.count - 1))
      await Promise.all(
        Array.from({length: workers}, () =>
          work().catch((error: unknown) => {
            failure ??= asError(error)
            abort.abort(failure)
          }),
        ),
      )
    } finally {
      for (const source of sources) source.destroy()
    }
    if (failure !== undefined) throw failure
    return this.#metas
  }

  async #persist(file: SyncFile, index: number, sources: readonly SyncAgentClient[], signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const source = sources[(index + attempt - 1) % sources.length]!
      try {
        await this.#receive(file, source, signal)
        return
      } catch (error) {
        signal.throwIfAborted()
        // A full disk does not become emptier by trying.
        if (attempt === ATTEMPTS || (error instanceof LonghornError && error.code === 'LH_NO_SPACE')) throw failed(file, source, error)
        this.#options.log.warn({file: file.to.name, from: source.peer, reason: messageOf(error)}, 'a file was not received, trying again')
      }
      await sleep(RETRY_MS * attempt, undefined, {signal}).catch(() => signal.throwIfAborted())
    }
  }

  async #receive(file: SyncFile, source: SyncAgentClient, signal: AbortSignal): Promise<void> {
    const {directory, sizeBytes, ports, log} = this.#options
    const {fastSync, fileSyncHttpClientTimeout, grpcTimeoutSeconds, toHost} = this.#request
    this.#count(file, 0)
    const {layer, kind} = file.to
    const sink = kind === 'data' ? new LayerSink(directory, layer, sizeBytes) : new MetaSink(file.to.name, async meta => void this.#metas.set(layer, meta))
    const receiver = await ports.start({sink, log, onProgress: bytes => this.#count(file, (this.#received.get(file) ?? 0) + bytes)})
    const abort = new AbortController()
    receiver.done.catch((error: unknown) => abort.abort(error))
    try {
      const timeoutMs = grpcTimeoutSeconds > 0n ? Number(grpcTimeoutSeconds) * 1000 : DEFAULT_FILE_MS
      const request = {fromFileName: file.from.name, host: toHost, port: receiver.port, fastSync, fileSyncHttpClientTimeout}
      await source.fileSend(request, {timeoutMs, signal: AbortSignal.any([abort.signal, signal])})
      const {opened, compared, checksum} = await receiver.finish()
      if (!opened && !compared) throw new LonghornError('PROTOCOL', `${source.peer} says that it has sent ${file.from.name}, and nothing has come`)
      if (kind === 'data' && compared && checksum !== undefined) await recordChecksum(directory, layer, checksum)
    } catch (error) {
      receiver.destroy(asError(error))
      throw error
    }
    this.#count(file, file.actualBytes)
  }

  #count(file: SyncFile, bytes: number): void {
    this.#received.set(file, Math.min(bytes, file.actualBytes))
    let sum = 1
    for (const received of this.#received.values()) sum += received
    this.#options.onProgress(Math.min(99, Math.floor((100 * sum) / (this.#totalBytes + 1))))
  }
}

function checkFiles(files: readonly SyncFile[]): void {
  if (files.length === 0) throw new LonghornError('USAGE', 'FilesSync: sync_file_info_list names no file')
  const seen = new Set<string>()
  for (const {from, to} of files) {
    if (from.kind !== to.kind) throw new LonghornError('USAGE', `FilesSync: ${from.name} cannot become ${to.name}`)
    if (to.layer.startsWith('volume-head-')) throw new LonghornError('USAGE', `FilesSync: ${to.name} is of the head, which is not replaced`)
    if (seen.has(to.name)) throw new LonghornError('USAGE', `FilesSync: ${to.name} is named twice`)
    seen.add(to.name)
  }
  for (const {to} of files) {
    const other = to.kind === 'data' ? `${to.layer}.meta` : to.layer
    if (!seen.has(other)) throw new LonghornError('USAGE', `FilesSync: ${to.name} is named without ${other}`)
  }
}

function tcpAddress(text: string): TcpAddress {
  const address = parseAddress(text)
  if (address.kind === 'tcp') return address
  throw new LonghornError('USAGE', `invalid address "${text}": expected that of a replica, tcp://host:port`)
}

function failed(file: SyncFile, source: SyncAgentClient, error: unknown): LonghornError {
  const kind = error instanceof LonghornError ? error.code.slice('LH_'.length) : 'IO'
  return new LonghornError(kind as ConstructorParameters<typeof LonghornError>[0], `${file.to.name} was not received from ${source.peer}: ${messageOf(error)}`, {}, {cause: error})
}
