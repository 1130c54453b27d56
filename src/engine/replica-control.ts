import {formatAddress, formatHostPort, parseAddress, type TcpAddress} from '../lib/address.js'
import {isKind, LonghornError} from '../lib/errors.js'
import {connectSocket} from '../lib/net/connect.js'
import {ALL_FEATURES} from '../protocol/frame.js'
import {connect, type RpcClient} from '../protocol/grpc/client.js'
import {toSize} from '../protocol/grpc/fields.js'
import {ReplicaServiceDefinition, type Replica} from '../protocol/proto/generated/replica.js'

/** What the engine needs to know of a replica before it uses it. */
export interface ReplicaFacts {
  readonly state: string
  readonly sizeBytes: number
  readonly sectorSize: number
  readonly rebuilding: boolean
  readonly features: readonly string[]
  /** Undefined when the replica does not count, and while it is closed: it reads the number when it is opened. */
  readonly revisionCounter: bigint | undefined
}

/** A snapshot to be taken; see ReplicaService.ReplicaSnapshot. */
export interface SnapshotRequest {
  readonly name: string
  readonly userCreated: boolean
  /** RFC 3339. */
  readonly created: string
  readonly labels: Readonly<Record<string, string>>
  /** The volume becomes this large with it, in bytes. */
  readonly growTo?: number
}

/** While a snapshot is being taken every initiator waits. */
const COMMIT_TIMEOUT_MS = 10_000
const CALL_TIMEOUT_MS = 30_000
const CONNECT_TIMEOUT_MS = 5000

/** The control service of one replica, and how to reach its data: the port after the control port. */
export class ReplicaControl {
  /** `tcp://host:port` */
  readonly address: string
  readonly host: string
  readonly #tcp: TcpAddress
  readonly #rpc: RpcClient<typeof ReplicaServiceDefinition>

  constructor(address: string, volumeName: string) {
    this.#tcp = parseReplicaAddress(address)
    this.address = formatAddress(this.#tcp)
    this.host = this.#tcp.host
    this.#rpc = connect(ReplicaServiceDefinition, {
      peer: 'replica',
      address: this.#tcp,
      identity: {volumeName},
      timeoutMs: CALL_TIMEOUT_MS,
    })
  }

  /** Asks without changing anything. Throws UNREACHABLE, TIMEOUT, PROTOCOL. */
  async inspect(signal?: AbortSignal): Promise<ReplicaFacts> {
    const {replica} = await this.#rpc.replicaGet({}, {timeoutMs: CONNECT_TIMEOUT_MS, signal})
    return this.#facts(replica)
  }

  /** Opens it for a session of this engine; a session before it is fenced. */
  async open(session: string, signal?: AbortSignal): Promise<ReplicaFacts> {
    const {replica} = await this.#rpc.replicaOpen({features: [...ALL_FEATURES], session}, {signal})
    return this.#facts(replica)
  }

  /** Does what takes time for a snapshot. Throws CONFLICT when there is one of that name. */
  async prepareSnapshot(request: SnapshotRequest): Promise<void> {
    await this.#rpc.replicaSnapshotPrepare(snapshotMessage(request))
  }

  /** Takes back a prepared snapshot. */
  async discardSnapshot(): Promise<void> {
    await this.#rpc.replicaSnapshotPrepare({name: ''})
  }

  /** Takes a snapshot of what is written by now. */
  async snapshot(request: SnapshotRequest): Promise<void> {
    await this.#rpc.replicaSnapshot(snapshotMessage(request), {timeoutMs: COMMIT_TIMEOUT_MS})
  }

  /** File names of its frozen layers. */
  async frozenLayers(): Promise<string[]> {
    const {replica} = await this.#rpc.replicaGet()
    return [...(replica?.disks.keys() ?? [])].filter(file => file.startsWith('volume-snap-'))
  }

  /** Makes the volume larger, on a replica that cannot prepare it. */
  async expand(sizeBytes: number): Promise<void> {
    await this.#rpc.replicaExpand({size: BigInt(sizeBytes)}, {timeoutMs: COMMIT_TIMEOUT_MS})
  }

  /** Makes the volume what it was at a snapshot, given by its file name. */
  async revert(layer: string, created: string): Promise<void> {
    await this.#rpc.replicaRevert({name: layer, created})
  }

  /** Ends the session: the replica writes down that it is clean. */
  async close(): Promise<void> {
    await this.#rpc.replicaClose()
  }

  /** A socket to its data server. Throws UNREACHABLE or TIMEOUT. */
  connectData(signal?: AbortSignal): Promise<number> {
    return connectSocket({...this.#tcp, port: this.#tcp.port + 1}, CONNECT_TIMEOUT_MS, signal)
  }

  /** Gives up the control connection. */
  disconnect(): void {
    this.#rpc.destroy()
  }

  #facts(replica: Replica | undefined): ReplicaFacts {
    const name = `replica ${formatHostPort(this.#tcp)}`
    if (replica === undefined) throw new LonghornError('PROTOCOL', `${name}: an answer without the replica`)
    return {
      state: replica.state,
      // A replica without files yet has no size.
      sizeBytes: replica.size === '' ? 0 : toSize(replica.size, `${name}: size`, 'PROTOCOL'),
      sectorSize: Number(replica.sectorSize),
      rebuilding: replica.rebuilding,
      features: replica.features,
      revisionCounter: replica.revisionCounterDisabled || replica.state === 'closed' ? undefined : replica.revisionCounter,
    }
  }
}

function snapshotMessage({labels, growTo = 0, ...rest}: SnapshotRequest) {
  return {...rest, labels: new Map(Object.entries(labels)), growTo: BigInt(growTo)}
}

/** Reads `tcp://host:port` or `host:port`. Throws USAGE. */
export function parseReplicaAddress(text: string): TcpAddress {
  const address = parseAddress(text)
  if (address.kind !== 'tcp') throw new LonghornError('USAGE', `replica "${text}": expected tcp://host:port`)
  if (address.port === 0 || address.port > 65534) {
    throw new LonghornError('USAGE', `replica "${text}": the port must be 1 to 65534; data goes to the one after it`)
  }
  return address
}

/** True for an error that says that nobody answered, as opposed to an answer that was no. */
export function isUnavailable(error: unknown): boolean {
  return isKind(error, 'UNREACHABLE') || isKind(error, 'TIMEOUT')
}
