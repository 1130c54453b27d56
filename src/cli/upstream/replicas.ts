// The replicas of a volume as upstream's commands work with them: the engine names them, the client asks each itself.
import {LonghornError, messageOf} from '../../lib/errors.js'
import {connect, type RpcClient} from '../../protocol/grpc/client.js'
import {ReplicaMode} from '../../protocol/proto/generated/controller.js'
import {ReplicaServiceDefinition, type Replica} from '../../protocol/proto/generated/replica.js'
import {SyncAgentServiceDefinition} from '../../protocol/proto/generated/sync-agent.js'
import {present, type EngineClient} from '../engine-connection.js'
import {parseListen} from '../flags.js'

export type SyncAgent = RpcClient<typeof SyncAgentServiceDefinition>

export interface ListedReplica {
  /** `tcp://host:port` */
  readonly address: string
  readonly mode: keyof typeof ReplicaMode
}

const CALL_TIMEOUT_MS = 180_000

/** The replicas that the engine knows, in its order. */
export async function listReplicas(engine: EngineClient, signal: AbortSignal): Promise<ListedReplica[]> {
  const {replicas} = await engine.replicaList({}, {signal})
  return replicas.map(({address, mode}) => ({address: present(address, "a replica's address").address, mode: modeName(mode)}))
}

/** What a replica says of itself. */
export async function askReplica({address}: ListedReplica, volumeName: string | undefined, signal: AbortSignal): Promise<Replica> {
  await using rpc = connectReplica(address, volumeName)
  return present((await rpc.replicaGet({}, {signal})).replica, 'the replica')
}

export function connectReplica(address: string, volumeName: string | undefined, instanceName?: string): RpcClient<typeof ReplicaServiceDefinition> {
  const identity = {volumeName, instanceName}
  return connect(ReplicaServiceDefinition, {peer: 'replica', address: parseListen(address, 'replica'), identity, timeoutMs: CALL_TIMEOUT_MS})
}

/** The host in a replica's address. */
export function hostOf(address: string): string {
  return parseListen(address, 'replica').host
}

/** Calls `use` with the sync agent of a replica, which listens two ports after it. */
export async function withAgent<T>({address}: Pick<ListedReplica, 'address'>, volumeName: string | undefined, use: (agent: SyncAgent) => Promise<T>): Promise<T> {
  const replica = parseListen(address, 'replica')
  await using agent = connect(SyncAgentServiceDefinition, {
    peer: 'sync agent',
    address: {...replica, port: replica.port + 2},
    identity: {volumeName},
    timeoutMs: CALL_TIMEOUT_MS,
  })
  return await use(agent)
}

/** Does something on every replica at the same time. Throws one error with all that went wrong, each after its replica's address. */
export async function onEachReplica(replicas: readonly ListedReplica[], act: (replica: ListedReplica) => Promise<void>): Promise<void> {
  const results = await Promise.allSettled(replicas.map(act))
  const failures = results.flatMap((result, index) => (result.status === 'rejected' ? [{address: replicas[index]!.address, reason: result.reason as unknown}] : []))
  const [first] = failures
  if (first === undefined) return
  const text = failures.map(({address, reason}) => `${address}: ${messageOf(reason)}`).join('; ')
  throw new LonghornError('IO', text, {}, {cause: first.reason})
}

/** Throws CONFLICT, saying what cannot be done, when a replica is being rebuilt. */
export async function refuseDuringRebuild(replicas: readonly ListedReplica[], what: string, volumeName: string | undefined, signal: AbortSignal): Promise<void> {
  for (const replica of replicas) {
    const {rebuilding} = await askReplica(replica, volumeName, signal)
    if (rebuilding) throw new LonghornError('CONFLICT', `cannot ${what} because ${replica.address} is rebuilding`)
  }
}

function modeName(mode: ReplicaMode): keyof typeof ReplicaMode {
  const found = Object.entries(ReplicaMode).find(([, value]) => value === mode)
  if (found === undefined) throw new LonghornError('PROTOCOL', `the engine's answer has a replica in an unknown mode, ${mode}`)
  return found[0] as keyof typeof ReplicaMode
}

/** `volume-snap-NAME.img` is NAME, a head is `volume-head`. */
export function bareName(file: string): string {
  if (/^volume-head-\d+\.img$/.test(file)) return 'volume-head'
  return /^volume-snap-(.+)\.img$/.exec(file)?.[1] ?? file
}
