import {provide, type Service} from '../protocol/grpc/service.js'
import {SyncAgentServiceDefinition} from '../protocol/proto/generated/sync-agent.js'
import type {Replica} from './replica.js'

/**
 * SyncAgentService (reference: engine-interop 3.6) over one replica: what takes long. Upstream has a process of its own for
 * it, on the port after the data port, so clients look for it there. Methods of rebuilds and backups come with those.
 */
export function syncAgentService(replica: Replica): Service {
  return provide(SyncAgentServiceDefinition, {
    async snapshotPurge() {
      await replica.purge()
      return {}
    },
    async snapshotPurgeStatus() {
      const {state, progress, error} = replica.purgeStatus
      return {isPurging: state === 'in_progress', error, progress, state}
    },
  })
}
