import {toInteger, toSize, toText} from '../protocol/grpc/fields.js'
import type {Handlers} from '../protocol/grpc/service.js'
import type {ReplicaResponse, ReplicaServiceDefinition} from '../protocol/proto/generated/replica.js'
import {removeActions, replaceDisk} from './disk-removal.js'
import {layerFileOf} from './layer-names.js'
import type {Replica} from './replica.js'

const MAX_INT32 = 0x7fff_ffff

/** The methods of ReplicaService that change settings and layers; `answer` describes the replica. */
export function maintenanceHandlers(replica: Replica, answer: () => Promise<ReplicaResponse>) {
  const {settings} = replica
  return {
    async replicaDelete() {
      await replica.delete()
      return {}
    },
    async diskReplace({target, source}) {
      await replaceDisk(replica, layer(target, 'DiskReplace: target'), layer(source, 'DiskReplace: source'))
      return answer()
    },
    async diskPrepareRemove({name}) {
      const file = layer(name, 'DiskPrepareRemove: name')
      return {operations: await replica.changeLayers(async volume => removeActions(volume, file))}
    },
    async unmapMarkDiskChainRemovedSet({enabled}) {
      settings.markOnUnmap = enabled
      return answer()
    },
    async snapshotMaxCountSet({count}) {
      settings.snapshotMaxCount = toInteger(count, 0, MAX_INT32, 'SnapshotMaxCountSet: count')
      return answer()
    },
    async snapshotMaxSizeSet({size}) {
      settings.snapshotMaxSizeBytes = toSize(size, 'SnapshotMaxSizeSet: size')
      return answer()
    },
  } satisfies Handlers<typeof ReplicaServiceDefinition>
}

function layer(name: string, what: string): string {
  return layerFileOf(toText(name, what))
}
