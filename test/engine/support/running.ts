// Real replicas and engines, all in this process.
import {join} from 'node:path'
import type {Test} from 'tap'
import {startEngineServer, type EngineServer, type EngineServerOptions} from '../../../src/engine/engine-server.js'
import {socketFrontend} from '../../../src/engine/frontends/socket.js'
import {formatAddress, type TcpAddress} from '../../../src/lib/address.js'
import {connect, type RpcClient} from '../../../src/protocol/grpc/client.js'
import {ReplicaServiceDefinition} from '../../../src/protocol/proto/generated/replica.js'
import {startReplicaServer, type ReplicaServer} from '../../../src/replica/replica-server.js'
import {memoryLog} from './fake-replicas.js'

export const SIZE_BYTES = 4 * 1024 * 1024
export const LOOPBACK: TcpAddress = {kind: 'tcp', host: '127.0.0.1', port: 0}

export interface RunningReplica {
  readonly directory: string
  /** `tcp://host:port`, as an engine is given it. */
  readonly address: string
  readonly server: ReplicaServer
  readonly rpc: RpcClient<typeof ReplicaServiceDefinition>
  readonly lines: Record<string, unknown>[]
}

export async function runReplica(t: Test, directory: string, sizeBytes: number | undefined): Promise<RunningReplica> {
  const {log, lines} = memoryLog()
  const server = await startReplicaServer({directory, sizeBytes, listen: LOOPBACK, log})
  t.teardown(() => server.close())
  const rpc = connect(ReplicaServiceDefinition, {peer: 'replica', address: server.address})
  t.teardown(() => rpc.destroy())
  // Connects: what is opened later is not this.
  await rpc.replicaGet()
  return {directory, address: formatAddress(server.address), server, rpc, lines}
}

/** Replicas in folders of their own below `folder`. */
export async function runReplicas(t: Test, folder: string, count: number, sizeBytes = SIZE_BYTES): Promise<RunningReplica[]> {
  const replicas: RunningReplica[] = []
  for (let index = 0; index < count; index++) replicas.push(await runReplica(t, join(folder, `replica-${index}`), sizeBytes))
  return replicas
}

export function engineOptions(replicas: readonly (RunningReplica | string)[], more: Partial<EngineServerOptions> = {}): EngineServerOptions {
  return {
    volume: 'vol',
    sizeBytes: SIZE_BYTES,
    replicas: replicas.map(replica => (typeof replica === 'string' ? replica : replica.address)),
    leastReplicas: 1,
    writeThrough: false,
    // Also a disk that others keep busy is to flush in time.
    replicaTimeoutMs: 60_000,
    listen: LOOPBACK,
    frontend: undefined,
    frontendListen: undefined,
    frontends: [socketFrontend],
    log: memoryLog().log,
    ...more,
  }
}

export async function runEngine(t: Test, options: EngineServerOptions): Promise<EngineServer> {
  const server = await startEngineServer(options)
  t.teardown(() => server.close())
  return server
}
