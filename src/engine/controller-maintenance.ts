import {LonghornError} from '../lib/errors.js'
import {toInteger, toMember, toSize, toText} from '../protocol/grpc/fields.js'
import type {Handlers} from '../protocol/grpc/service.js'
import {ReplicaMode, type ControllerServiceDefinition, type Volume as VolumeMessage} from '../protocol/proto/generated/controller.js'
import type {Engine} from './engine.js'
import {logRequestsInFlight} from './journal.js'

const MAX_INT32 = 0x7fff_ffff

/** The methods of ControllerService for settings, observation and taking replicas out of use; `volume` describes the volume. */
export function maintenanceHandlers(engine: Engine, volume: () => VolumeMessage) {
  return {
    async volumeUnmapMarkSnapChainRemovedSet({enabled}) {
      await engine.setUnmapMark(enabled)
      return volume()
    },
    async volumeSnapshotMaxCountSet({count}) {
      await engine.setSnapshotMaxCount(toInteger(count, 0, MAX_INT32, 'VolumeSnapshotMaxCountSet: count'))
      return volume()
    },
    async volumeSnapshotMaxSizeSet({size}) {
      await engine.setSnapshotMaxSize(toSize(size, 'VolumeSnapshotMaxSizeSet: size'))
      return volume()
    },
    async replicaRebuildConcurrentSyncLimitSet({limit}) {
      engine.settings.rebuildSyncLimit = toInteger(limit, 1, MAX_INT32, 'ReplicaRebuildConcurrentSyncLimitSet: limit')
      return {}
    },
    async replicaRebuildConcurrentSyncLimitGet() {
      return {limit: engine.settings.rebuildSyncLimit}
    },
    async replicaDelete({address}) {
      await engine.removeReplica(toText(address, 'ReplicaDelete: address'))
      return {}
    },
    async replicaUpdate({address, mode}) {
      const name = toText(address?.address ?? '', 'ReplicaUpdate: address')
      const wanted = toMember(ReplicaMode, mode, 'ReplicaUpdate: mode')
      if (wanted !== ReplicaMode.ERR) {
        throw new LonghornError('UNSUPPORTED', 'ReplicaUpdate: a replica can only be set to ERR; it comes back by being rebuilt')
      }
      await engine.setAside(name)
      return {address: {address: name, instanceName: ''}, mode: ReplicaMode.ERR}
    },
    async journalList({limit}) {
      logRequestsInFlight(engine.volume, toInteger(Number(limit), 0, Number.MAX_SAFE_INTEGER, 'JournalList: limit'), engine.log)
      return {}
    },
    async metricsGet() {
      const rates = engine.volume.metrics.rates(performance.now())
      return {
        metrics: {
          readThroughput: BigInt(rates.readBytes),
          writeThroughput: BigInt(rates.writeBytes),
          readLatency: BigInt(rates.readLatencyNs),
          writeLatency: BigInt(rates.writeLatencyNs),
          readIOPS: BigInt(rates.reads),
          writeIOPS: BigInt(rates.writes),
        },
      }
    },
  } satisfies Handlers<typeof ControllerServiceDefinition>
}
