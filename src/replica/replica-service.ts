import {isKind, LonghornError} from '../lib/errors.js'
import {ALL_FEATURES, FEATURE} from '../protocol/frame.js'
import {toSize, toText, toTime} from '../protocol/grpc/fields.js'
import {provide, type Service} from '../protocol/grpc/service.js'
import {ReplicaServiceDefinition, type DiskInfo, type Replica as ReplicaMessage, type ReplicaResponse, type ReplicaSnapshotRequest, type RestoredBackup} from '../protocol/proto/generated/replica.js'
import {unwrittenLayers, type RestoreKeeper} from './backup/restore-record.js'
import type {Layer, ReplicaDirectory} from './layer-chain.js'
import {layerFileOf, snapshotFile} from './layer-names.js'
import type {Membership, ReplicaRecord} from './membership.js'
import {toJoinRequest, toLayers, toRebuildRequest} from './rebuild/rebuild-messages.js'
import type {Replica} from './replica.js'
import {maintenanceHandlers} from './replica-maintenance.js'
import {snapshotUsage, type ReplicaSettings} from './replica-settings.js'
import type {ReplicaVolume} from './replica-volume.js'
import type {SnapshotSpec} from './snapshot.js'
import type {RebuildTarget} from './ssync/rebuild-target.js'

/** Upstream refuses the 251st layer; ours has no such limit, and says so with a number that fits the field. */
const MOST_SNAPSHOTS = 65_000

/** ReplicaService (reference: engine-interop 3.5) over one replica. */
export function replicaService(replica: Replica, target: RebuildTarget): Service {
  const answer = async (): Promise<ReplicaResponse> => ({replica: await describe(replica)})
  return provide(ReplicaServiceDefinition, {
    ...maintenanceHandlers(replica, answer),
    async replicaGet() {
      return answer()
    },
    async replicaCreate({size}) {
      await replica.create(toSize(size, 'ReplicaCreate: size'))
      return answer()
    },
    async replicaOpen({session, features}) {
      await replica.open({session, strict: features.includes(FEATURE.HELLO)})
      return answer()
    },
    async replicaMembersSet({session, membership}) {
      if (membership === undefined) throw new LonghornError('USAGE', 'ReplicaMembersSet: membership is missing')
      await replica.setMembers(session, {...membership, generation: toSize(membership.generation, 'ReplicaMembersSet: generation')})
      return answer()
    },
    async replicaJoin(request) {
      const {session, features} = request
      await replica.join({session: toText(session, 'ReplicaJoin: session'), strict: features.includes(FEATURE.HELLO)}, toJoinRequest(request))
      return answer()
    },
    async replicaRebuild(request) {
      const {directory} = await replica.describe()
      // Of the head that was made when it joined: snapshots may have been taken since.
      const oldest = directory?.chain[0]
      await replica.rebuild(request.session, toRebuildRequest(request, oldest?.meta.parent ?? ''))
      return answer()
    },
    async replicaRebuildProgress() {
      const {done, total, copied, ...rest} = replica.rebuildStatus
      return {...rest, done: BigInt(done), total: BigInt(total), copied: BigInt(copied)}
    },
    async replicaRebuildFinish({session, layers}) {
      await replica.finishRebuild(session, toLayers(layers, 'ReplicaRebuildFinish: layers'))
      return answer()
    },
    async replicaSnapshotPrepare(request) {
      await replica.prepareSnapshot(request.name === '' ? undefined : snapshotSpec(request))
      return answer()
    },
    async replicaSnapshot(request) {
      await replica.snapshot(snapshotSpec(request))
      return answer()
    },
    async replicaRevert({name, created}) {
      await replica.revert(toLayerFile(name, 'ReplicaRevert: name'), toTime(created, 'ReplicaRevert: created'))
      return answer()
    },
    async replicaExpand({size}) {
      await replica.expand(toSize(size, 'ReplicaExpand: size'), new Date().toISOString().replace(/\.\d+Z$/, 'Z'))
      return answer()
    },
    async diskMarkAsRemoved({name}) {
      await replica.markRemoved(toLayerFile(name, 'DiskMarkAsRemoved: name'))
      return answer()
    },
    async replicaRelease({session}) {
      await replica.release(toText(session, 'ReplicaRelease: session'))
      return answer()
    },
    async replicaClose() {
      await replica.close()
      return answer()
    },
    async replicaReload() {
      await target.reload()
      return answer()
    },
    async rebuildingSet({rebuilding}) {
      await target.set(rebuilding)
      return answer()
    },
    async diskRemove({name}) {
      await target.removeLayer(toLayerFile(name, 'DiskRemove: name'))
      return answer()
    },
    async revisionCounterSet({counter}) {
      await replica.setRevision(toSize(counter, 'RevisionCounterSet: counter'))
      return answer()
    },
  })
}

function snapshotSpec({name, userCreated, created, labels, growTo}: ReplicaSnapshotRequest): SnapshotSpec {
  snapshotFile(toText(name, 'ReplicaSnapshot: name'))
  return {name, userCreated, created: toTime(created, 'ReplicaSnapshot: created'), labels: Object.fromEntries(labels), growTo: growTo === 0n ? undefined : toSize(growTo, 'ReplicaSnapshot: grow_to')}
}

function toLayerFile(name: string, what: string): string {
  return layerFileOf(toText(name, what))
}

async function describe(replica: Replica): Promise<ReplicaMessage> {
  try {
    const {state, directory, volume, record} = await replica.describe()
    return {...message(state, directory, volume, record, replica.settings), restored: restoredMessage(replica.restores, directory)}
  } catch (error) {
    // A directory that cannot be read is a state as well: the engine is told which replica it cannot use.
    if (!(error instanceof LonghornError) || isKind(error, 'UNSUPPORTED')) throw error
    return message('error', undefined, undefined, replica.record, replica.settings)
  }
}

function message(state: string, directory: ReplicaDirectory | undefined, volume: ReplicaVolume | undefined, record: ReplicaRecord | undefined, settings: ReplicaSettings): ReplicaMessage {
  const closed: ReplicaMessage = {
    dirty: directory?.volume.dirty ?? false,
    rebuilding: directory?.volume.rebuilding ?? false,
    head: directory?.volume.head ?? '',
    parent: directory?.chain.at(-1)?.meta.parent ?? '',
    size: directory === undefined ? '0' : `${directory.volume.sizeBytes}`,
    sectorSize: BigInt(directory?.volume.sectorBytes ?? 512),
    backingFile: directory?.volume.backingFile ?? '',
    state,
    chain: [],
    disks: new Map(),
    remainSnapshots: 0,
    revisionCounter: 0n,
    lastModifyTime: 0n,
    headFileSize: 0n,
    revisionCounterDisabled: directory === undefined || !directory.entries.includes('revision.counter'),
    unmapMarkDiskChainRemoved: settings.markOnUnmap,
    snapshotCountUsage: 0,
    snapshotSizeUsage: 0n,
    snapshotCountTotal: 0,
    features: [...ALL_FEATURES],
    replicaId: record?.id ?? '',
    membership: record?.membership && toMembershipMessage(record.membership),
    restored: undefined,
    unwrittenLayers: [],
  }
  return directory === undefined || volume === undefined ? closed : {...closed, ...openFields(directory, volume, settings)}
}

function restoredMessage(restores: RestoreKeeper, directory: ReplicaDirectory | undefined): RestoredBackup | undefined {
  const {begun, running} = restores
  const restored = restores.restored(directory)
  if (begun === undefined && restored === undefined && !running) return undefined
  return {begun: begun?.backup ?? '', running, backup: restored?.backup ?? '', layer: restored?.layer ?? ''}
}

function toMembershipMessage({generation, members, lineage}: Membership) {
  return {generation: BigInt(generation), members: [...members], lineage: [...lineage]}
}

function openFields(directory: ReplicaDirectory, volume: ReplicaVolume, {snapshotMaxCount}: ReplicaSettings): Partial<ReplicaMessage> {
  const usage = new Map(volume.usage().map(layer => [layer.file, layer]))
  const layers = [...directory.chain, ...directory.others]
  const head = directory.chain.at(-1)!
  const {count, sizeBytes} = snapshotUsage(volume)
  return {
    dirty: volume.meta.dirty,
    // The head first; without the layers that are marked as removed.
    chain: directory.chain.filter(layer => !layer.meta.removed).map(layer => layer.file).reverse(),
    disks: new Map(layers.map(layer => [layer.file, disk(layer, layers, usage.get(layer.file)?.allocatedBytes)])),
    remainSnapshots: snapshotMaxCount === 0 ? MOST_SNAPSHOTS - layers.length : Math.max(0, snapshotMaxCount - count),
    revisionCounter: BigInt(volume.revision ?? 0),
    revisionCounterDisabled: volume.revision === undefined,
    lastModifyTime: BigInt(Math.round((usage.get(head.file)?.modifiedMs ?? 0) * 1e6)),
    headFileSize: BigInt(usage.get(head.file)?.allocatedBytes ?? 0),
    snapshotCountUsage: count,
    snapshotSizeUsage: BigInt(sizeBytes),
    snapshotCountTotal: layers.length,
    unwrittenLayers: unwrittenLayers(volume),
  }
}

function disk(layer: Layer, all: readonly Layer[], allocatedBytes = layer.allocatedBytes): DiskInfo {
  const children = all.filter(other => other.meta.parent === layer.file).map(other => [other.file, true] as const)
  return {
    name: layer.file,
    parent: layer.meta.parent,
    children: new Map(children),
    removed: layer.meta.removed,
    userCreated: layer.meta.userCreated,
    created: layer.meta.created,
    size: `${allocatedBytes}`,
    labels: new Map(Object.entries(layer.meta.labels ?? {})),
    lengthBytes: BigInt(layer.sizeBytes),
  }
}
