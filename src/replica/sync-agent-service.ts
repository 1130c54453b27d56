import {provide, type Service} from '../protocol/grpc/service.js'
import {SyncAgentServiceDefinition} from '../protocol/proto/generated/sync-agent.js'
import type {Replica} from './replica.js'
import {removeLooseFile, renameLooseFile} from './ssync/loose-files.js'
import type {SyncAgent} from './ssync/sync-agent.js'

/**
 * SyncAgentService (reference: engine-interop 3.6) over one replica: what takes long. Upstream has a process of its own for
 * it, on the port after the data port, so clients look for it there. Methods of backups come with those.
 */
export function syncAgentService(replica: Replica, agent: SyncAgent): Service {
  return provide(SyncAgentServiceDefinition, {
    async snapshotPurge() {
      await replica.purge()
      return {}
    },
    async snapshotPurgeStatus() {
      const {state, progress, error} = replica.purgeStatus
      return {isPurging: state === 'in_progress', error, progress, state}
    },
    async fileRemove({fileName}) {
      await removeLooseFile(replica, fileName)
      return {}
    },
    async fileRename({oldFileName, newFileName}) {
      await renameLooseFile(replica, oldFileName, newFileName)
      return {}
    },
    async fileSend(request, {signal}) {
      await agent.sendFile(request, signal)
      return {}
    },
    async filesSync(request, {signal}) {
      await agent.syncFiles(request, signal)
      return {}
    },
    async receiverLaunch({toFileName}) {
      return {port: await agent.launchReceiver(toFileName)}
    },
    async replicaRebuildStatus() {
      const {state, progress, error} = agent.rebuild.status
      return {isRebuilding: agent.rebuild.running, error, progress, state, fromReplicaAddress: '', fromReplicaAddressList: [...agent.rebuildSources]}
    },
    async volumeExport(request, {signal}) {
      await agent.exportVolume(request, signal)
      return {}
    },
    async snapshotClone(request, {signal}) {
      await agent.cloneSnapshot(request, signal)
      return {}
    },
    async snapshotCloneStatus() {
      const {state, progress, error} = agent.clone.status
      return {isCloning: agent.clone.running, error, progress, state, fromReplicaAddress: agent.cloneSource.address, snapshotName: agent.cloneSource.snapshot}
    },
    async reset() {
      agent.reset()
      return {}
    },
  })
}
