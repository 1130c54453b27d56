import {parseAddress, type TcpAddress} from '../lib/address.js'
import {connect, type RpcClient} from '../protocol/grpc/client.js'
import {SyncAgentServiceDefinition, type BackupRestoreRequest, type RestoreStatusResponse} from '../protocol/proto/generated/sync-agent.js'

/** Finding the backup takes a lock of two seconds, and a few round trips to the store. */
const START_TIMEOUT_MS = 180_000
/** The layers' extents are read when it is put in its place, and what was there is closed. */
const FINISH_TIMEOUT_MS = 120_000
const CALL_TIMEOUT_MS = 30_000

/** The restore of one replica, as the engine leads it. */
export class RestoreAgent implements Disposable {
  readonly #rpc: RpcClient<typeof SyncAgentServiceDefinition>

  /** `replica`: `tcp://host:port` of its control service. */
  constructor(
    readonly replica: string,
    volumeName: string,
  ) {
    const address = parseAddress(replica) as TcpAddress
    this.#rpc = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...address, port: address.port + 2}, identity: {volumeName}, timeoutMs: CALL_TIMEOUT_MS})
  }

  async begin(request: BackupRestoreRequest): Promise<void> {
    await this.#rpc.backupRestore(request, {timeoutMs: START_TIMEOUT_MS})
  }

  status(): Promise<RestoreStatusResponse> {
    return this.#rpc.restoreStatus({})
  }

  async finish(session: string, layer: string): Promise<void> {
    await this.#rpc.backupRestoreFinish({session, layer}, {timeoutMs: FINISH_TIMEOUT_MS})
  }

  async cancel(): Promise<void> {
    await this.#rpc.backupRestoreCancel({}, {timeoutMs: FINISH_TIMEOUT_MS})
  }

  [Symbol.dispose](): void {
    this.#rpc.destroy()
  }
}
