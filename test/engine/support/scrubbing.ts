// What tests of scrub do with an engine and its replicas.
import {join} from 'node:path'
import type {Test} from 'tap'
import {connect, type RpcClient} from '../../../src/protocol/grpc/client.js'
import type {ControllerServiceDefinition, VolumeScrubStatusResponse} from '../../../src/protocol/proto/generated/controller.js'
import {SyncAgentServiceDefinition} from '../../../src/protocol/proto/generated/sync-agent.js'
import {until} from '../../support/until.js'
import type {RunningReplica} from './running.js'

export type Engine = RpcClient<typeof ControllerServiceDefinition>

/** Waits for the end of a scrub. */
export async function scrubbed(rpc: Engine): Promise<VolumeScrubStatusResponse> {
  let status = await rpc.volumeScrubStatus({})
  await until(async () => (status = await rpc.volumeScrubStatus({})).state !== 'in_progress', 'it is scrubbed', 60_000)
  return status
}

export async function scrub(rpc: Engine): Promise<VolumeScrubStatusResponse> {
  await rpc.volumeScrub({})
  return scrubbed(rpc)
}

export function agent(t: Test, {server}: RunningReplica): RpcClient<typeof SyncAgentServiceDefinition> {
  const rpc = connect(SyncAgentServiceDefinition, {peer: 'sync agent', address: {...server.address, port: server.address.port + 2}})
  t.teardown(() => rpc.destroy())
  return rpc
}

export function fileOf({directory}: RunningReplica, snapshot: string): string {
  return join(directory, `volume-snap-${snapshot}.img`)
}
