import {formatAddress, formatHostPort, parseAddress, type TcpAddress} from '../lib/address.js'
import {isKind, LonghornError} from '../lib/errors.js'
import {connectSocket} from '../lib/net/connect.js'
import {ALL_FEATURES, FEATURE} from '../protocol/frame.js'
import {connect, type RpcClient} from '../protocol/grpc/client.js'
import {toSize} from '../protocol/grpc/fields.js'
import {
  ReplicaServiceDefinition,
  type DiskInfo,
  type RebuildProgress,
  type Replica,
  type ReplicaJoinRequest,
  type ReplicaRebuildRequest,
  type RestoredBackup,
} from '../protocol/proto/generated/replica.js'
import {toMembership, type Membership} from './membership.js'
import {SyncAgentServiceDefinition} from '../protocol/proto/generated/sync-agent.js'
import type {SnapshotUsage} from '../protocol/snapshot-limits.js'

/** What the engine needs to know of a replica before it uses it. */
export interface ReplicaFacts {
  readonly state: string
  readonly sizeBytes: number
  readonly sectorSize: number
  readonly rebuilding: boolean
  readonly features: readonly string[]
  /** Of this copy; '' when it has none, or not yet. */
  readonly id: string
  readonly membership: Membership | undefined
  /** It was not closed cleanly, or is in use. */
  readonly dirty: boolean
  /** Undefined when the replica does not count, and while it is closed: it reads the number when it is opened. */
  readonly revisionCounter: bigint | undefined
  /** Backups in it; undefined when there are none. */
  readonly restored: RestoredBackup | undefined
  /** Frozen layers of the live chain, from the top: those above which nothing was written. While it is open. */
  readonly unwrittenLayers: readonly string[]
  /** Some layer holds data. While it is open. */
  readonly holdsData: boolean
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
/** It syncs, on a disk that may have much else to write. Who is dead is noticed sooner, on the data connection. */
const MEMBERS_TIMEOUT_MS = 120_000
const JOIN_TIMEOUT_MS = 120_000
const CALL_TIMEOUT_MS = 30_000
const CONNECT_TIMEOUT_MS = 5000

/** The control service of one replica, and how to reach its data: the port after the control port. */
export class ReplicaControl {
  /** `tcp://host:port` */
  readonly address: string
  readonly host: string
  readonly #tcp: TcpAddress
  /** The one that has it open, of a replica that knows sessions. */
  #session: string | undefined
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

  /** Opens it for a session of this engine, if it is not open for that already; a session before it is fenced. */
  async open(session: string, signal?: AbortSignal): Promise<ReplicaFacts> {
    if (this.#session === session) return this.inspect(signal)
    const {replica} = await this.#rpc.replicaOpen({features: [...ALL_FEATURES], session}, {signal})
    return this.#opened(session, replica)
  }

  /** Goes on in a session that another process has opened. `features`: the replica's. */
  adopt(session: string, features: readonly string[]): void {
    if (features.includes(FEATURE.HELLO)) this.#session = session
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

  /** Records who has everything that is acknowledged from now on. */
  async setMembers(session: string, {generation, members, lineage}: Membership): Promise<void> {
    const membership = {generation: BigInt(generation), members: [...members], lineage: [...lineage]}
    await this.#rpc.replicaMembersSet({session, membership}, {timeoutMs: MEMBERS_TIMEOUT_MS})
  }

  /** All frozen layers, parents first, and what the head stands on. */
  async layers(): Promise<{layers: DiskInfo[]; parent: string}> {
    const {replica} = await this.#rpc.replicaGet({})
    const head = replica?.disks.get(replica.head)
    if (replica === undefined || head === undefined) throw new LonghornError('PROTOCOL', `replica ${this.address}: an answer without the head`)
    return {layers: parentsFirst([...replica.disks.values()].filter(disk => disk.name !== head.name)), parent: head.parent}
  }

  /** See ReplicaService.ReplicaJoin. It may have to take a snapshot, or to create its files. */
  async join(request: Omit<ReplicaJoinRequest, 'features'>): Promise<ReplicaFacts> {
    const {replica} = await this.#rpc.replicaJoin({...request, features: [...ALL_FEATURES]}, {timeoutMs: JOIN_TIMEOUT_MS})
    return this.#opened(request.session, replica)
  }

  #opened(session: string, replica: Replica | undefined): ReplicaFacts {
    const facts = this.#facts(replica)
    if (facts.features.includes(FEATURE.HELLO)) this.#session = session
    return facts
  }

  async rebuild(request: ReplicaRebuildRequest): Promise<void> {
    await this.#rpc.replicaRebuild(request)
  }

  async rebuildProgress(): Promise<RebuildProgress> {
    return this.#rpc.replicaRebuildProgress({})
  }

  /** Makes a whole replica of one that was rebuilt. It reads where each of its layers has data. */
  async finishRebuild(session: string, layers: DiskInfo[]): Promise<void> {
    await this.#rpc.replicaRebuildFinish({session, layers}, {timeoutMs: JOIN_TIMEOUT_MS})
  }

  /** Begins to give back the space of removed snapshots. BUSY while its layers are needed for something else. */
  async purge(): Promise<void> {
    const agent = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...this.#tcp, port: this.#tcp.port + 2}, timeoutMs: CALL_TIMEOUT_MS})
    try {
      await agent.snapshotPurge()
    } finally {
      agent.destroy()
    }
  }

  /** Marks a snapshot, by its file name, as removed. */
  async markRemoved(layer: string): Promise<void> {
    await this.#rpc.diskMarkAsRemoved({name: layer})
  }

  /** What its snapshots take; it must be open. */
  async snapshotUsage(): Promise<SnapshotUsage> {
    const {replica} = await this.#rpc.replicaGet()
    const {snapshotCountUsage, snapshotSizeUsage, headFileSize} = this.#present(replica)
    return {
      count: snapshotCountUsage,
      sizeBytes: toSize(snapshotSizeUsage, `${this.#name}: snapshot_size_usage`, 'PROTOCOL'),
      headBytes: toSize(headFileSize, `${this.#name}: head_file_size`, 'PROTOCOL'),
    }
  }

  async setUnmapMark(enabled: boolean): Promise<void> {
    await this.#rpc.unmapMarkDiskChainRemovedSet({enabled})
  }

  async setSnapshotMaxCount(count: number): Promise<void> {
    await this.#rpc.snapshotMaxCountSet({count})
  }

  async setSnapshotMaxSize(sizeBytes: number): Promise<void> {
    await this.#rpc.snapshotMaxSizeSet({size: BigInt(sizeBytes)})
  }

  /** Ends the session: the replica writes down that it is clean. */
  async close(): Promise<void> {
    // One of ours may have been taken over by another engine meanwhile, and is not ours to close then.
    if (this.#session === undefined) await this.#rpc.replicaClose()
    else await this.#rpc.replicaRelease({session: this.#session})
  }

  /** A socket to its data server. Throws UNREACHABLE or TIMEOUT. */
  connectData(signal?: AbortSignal): Promise<number> {
    return connectSocket({...this.#tcp, port: this.#tcp.port + 1}, CONNECT_TIMEOUT_MS, signal)
  }

  /** Gives up the control connection. */
  disconnect(): void {
    this.#rpc.destroy()
  }

  get #name(): string {
    return `replica ${formatHostPort(this.#tcp)}`
  }

  #present(replica: Replica | undefined): Replica {
    if (replica !== undefined) return replica
    throw new LonghornError('PROTOCOL', `${this.#name}: an answer without the replica`)
  }

  #facts(answer: Replica | undefined): ReplicaFacts {
    const replica = this.#present(answer)
    return {
      state: replica.state,
      // A replica without files yet has no size.
      sizeBytes: replica.size === '' ? 0 : toSize(replica.size, `${this.#name}: size`, 'PROTOCOL'),
      sectorSize: Number(replica.sectorSize),
      rebuilding: replica.rebuilding,
      features: replica.features,
      id: replica.replicaId,
      membership: replica.membership && toMembership(replica.membership, `${this.#name}: membership`),
      dirty: replica.dirty,
      revisionCounter: replica.revisionCounterDisabled || replica.state === 'closed' ? undefined : replica.revisionCounter,
      restored: replica.restored,
      unwrittenLayers: replica.unwrittenLayers,
      holdsData: [...replica.disks.values()].some(({size}) => size !== '' && size !== '0'),
    }
  }
}

/** Throws PROTOCOL when there is a loop, or a parent is missing. */
function parentsFirst(disks: readonly DiskInfo[]): DiskInfo[] {
  const sorted: DiskInfo[] = []
  const there = new Set([''])
  for (let left = [...disks]; left.length > 0; ) {
    const next = left.filter(disk => there.has(disk.parent))
    if (next.length === 0) throw new LonghornError('PROTOCOL', `layers that stand on nothing: ${left.map(disk => disk.name).join(', ')}`)
    for (const disk of next) there.add(disk.name)
    sorted.push(...next)
    left = left.filter(disk => !there.has(disk.name))
  }
  return sorted
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
