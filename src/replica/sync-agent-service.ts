import {isKind} from '../lib/errors.js'
import {toInteger, toSize, toText} from '../protocol/grpc/fields.js'
import {provide, type Service} from '../protocol/grpc/service.js'
import {SyncAgentServiceDefinition, type LayerHealBlocksResponse} from '../protocol/proto/generated/sync-agent.js'
import {HEAL_OUTCOME, MOST_REGIONS, REGION_BYTES} from '../protocol/scrub-units.js'
import type {BackupJobs} from './backup/backup-jobs.js'
import type {RestoreJobs} from './backup/restore-jobs.js'
import {layerFileOf} from './layer-names.js'
import type {Replica} from './replica.js'
import type {HealedBlocks} from './scrub/layer-healer.js'
import {removeLooseFile, renameLooseFile} from './ssync/loose-files.js'
import type {SyncAgent} from './ssync/sync-agent.js'

/**
 * SyncAgentService (reference: engine-interop 3.6) over one replica: what takes long. Upstream has a process of its own for
 * it, on the port after the data port, so clients look for it there.
 */
export function syncAgentService(replica: Replica, agent: SyncAgent, backups: BackupJobs, restores: RestoreJobs): Service {
  const {hasher, scrubber} = replica
  return provide(SyncAgentServiceDefinition, {
    async snapshotPurge() {
      await replica.purge()
      return {}
    },
    async snapshotPurgeStatus() {
      const {state, progress, error} = replica.purgeStatus
      return {isPurging: state === 'in_progress', error, progress, state}
    },
    async snapshotHash({snapshotName, rehash}) {
      await hasher.start(toText(snapshotName, 'SnapshotHash: snapshot_name'), rehash)
      return {}
    },
    async snapshotHashStatus({snapshotName}) {
      return hasher.status(toText(snapshotName, 'SnapshotHashStatus: snapshot_name'))
    },
    async snapshotHashCancel({snapshotName}) {
      hasher.cancel(toText(snapshotName, 'SnapshotHashCancel: snapshot_name'))
      return {}
    },
    async snapshotHashLockState() {
      return {isLocked: hasher.locked}
    },
    async layerDigests({layer, first, count}, {signal}) {
      const from = toSize(first, 'LayerDigests: first')
      const {sizeBytes, ...rest} = await scrubber.digests(toLayer(layer), from, toInteger(count, 1, MOST_REGIONS, 'LayerDigests: count'), signal)
      return {size: BigInt(sizeBytes), ...rest}
    },
    async layerBlocks({layer, region}, {signal}) {
      return scrubber.blocks(toLayer(layer), toRegion(region, 'LayerBlocks: region'), signal)
    },
    async layerRead({layer, offset, length}, {signal}) {
      const data = await scrubber.read(toLayer(layer), toSize(offset, 'LayerRead: offset'), toInteger(length, 1, REGION_BYTES, 'LayerRead: length'), signal)
      return {data}
    },
    async layerHeal({layer, offset, data, expected}, {signal}) {
      await scrubber.healer.heal(toLayer(layer), toSize(offset, 'LayerHeal: offset'), Buffer.from(data), Buffer.from(expected), signal)
      return {}
    },
    async layerHealBlocks({layer, region, which, data, expected, digests}, {signal}) {
      const contents = {data: Buffer.from(data), expected: Buffer.from(expected), digests: Buffer.from(digests)}
      return toHealResponse(await scrubber.healer.healBlocks(toLayer(layer), toRegion(region, 'LayerHealBlocks: region'), Buffer.from(which), contents, signal))
    },
    async layerVerify({layer}, {signal}) {
      const matches = await hasher.verify(toLayer(layer), signal)
      return {recorded: matches !== undefined, matches: matches === true}
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
      if (replica.directed) {
        const {state, error, done, total} = replica.rebuildStatus
        const progress = state === 'complete' ? 100 : Math.min(99, Math.floor((100 * done) / Math.max(total, 1)))
        return {isRebuilding: state === 'in_progress', error, progress, state, fromReplicaAddress: '', fromReplicaAddressList: []}
      }
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
    async backupCreate(request, {signal}) {
      return backups.start(request, signal)
    },
    async backupStatus({backup}) {
      const {transfer, snapshot, url, ...status} = backups.status(toText(backup, 'BackupStatus: backup'))
      return {
        state: status.state,
        progress: status.progress,
        error: status.error,
        backupUrl: url,
        snapshotName: snapshot,
        blocks: BigInt(transfer.blocks),
        totalBlocks: BigInt(transfer.totalBlocks),
        volumeBytes: BigInt(transfer.volumeBytes),
        newBytes: BigInt(transfer.objectBytes),
      }
    },
    async backupRemove({backup}) {
      await backups.remove(toText(backup, 'BackupRemove: backup'))
      return {}
    },
    async backupRestore(request, {signal}) {
      await restores.start(request, signal)
      return {}
    },
    async restoreStatus() {
      const {state, progress, error, url, backup, layer, ready, incremental, transfer} = restores.status
      return {
        isRestoring: restores.running,
        lastRestored: await restores.lastRestored(),
        progress,
        error,
        destFileName: layer,
        state,
        backupUrl: url,
        currentRestoringBackup: restores.running ? backup : '',
        ready,
        incremental,
        blocks: BigInt(transfer.blocks),
        totalBlocks: BigInt(transfer.totalBlocks),
        volumeBytes: BigInt(transfer.volumeBytes),
        objectBytes: BigInt(transfer.objectBytes),
      }
    },
    async backupRestoreFinish({session, layer}) {
      await restores.finish(toText(session, 'BackupRestoreFinish: session'), toLayer(layer))
      return {}
    },
    async backupRestoreCancel() {
      await restores.cancel()
      return {}
    },
    async reset() {
      agent.reset()
      backups.reset()
      restores.reset()
      return {}
    },
  })
}

function toLayer(name: string): string {
  return layerFileOf(toText(name, 'layer'))
}

/** Its last byte can be counted exactly, too. */
function toRegion(value: bigint, what: string): number {
  toSize((value + 1n) * BigInt(REGION_BYTES), `${what}: its end`)
  return toSize(value, what)
}

function toHealResponse({blocks, failures}: HealedBlocks): LayerHealBlocksResponse {
  const outcomes = Buffer.alloc(blocks.length, HEAL_OUTCOME.HEALED)
  for (const {block, error} of failures) {
    outcomes[blocks.indexOf(block)] = isKind(error, 'CONFLICT') ? HEAL_OUTCOME.CHANGED : isKind(error, 'NO_SPACE') ? HEAL_OUTCOME.NO_SPACE : HEAL_OUTCOME.DISK_FAILED
  }
  return {outcomes, reasons: failures.map(({error}) => error.message)}
}
