import type {TcpAddress} from '../../lib/address.js'
import {LonghornError} from '../../lib/errors.js'
import {connect, type RpcClient} from '../../protocol/grpc/client.js'
import {SyncAgentServiceDefinition} from '../../protocol/proto/generated/sync-agent.js'

export type SyncAgentClient = RpcClient<typeof SyncAgentServiceDefinition>

/** The sync agent of the replica at this address; destroy it. USAGE for a port that has no others after it. */
export function syncAgentAt(replica: TcpAddress, volumeName: string | undefined): SyncAgentClient {
  if (replica.port < 1 || replica.port > 65533) throw new LonghornError('USAGE', `${replica.host}:${replica.port} cannot be the address of a replica`)
  const address = {...replica, port: replica.port + 2}
  return connect(SyncAgentServiceDefinition, {peer: 'sync agent', address, identity: {volumeName: volumeName === '' ? undefined : volumeName}})
}
