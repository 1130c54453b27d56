import {LonghornError} from '../lib/errors.js'
import {toInteger, toSize, toText} from '../protocol/grpc/fields.js'
import {provide, type Handlers, type ServedMethod, type Service} from '../protocol/grpc/service.js'
import {ControllerServiceDefinition, type MetricsGetResponse, type Volume} from '../protocol/proto/generated/controller.js'
import {controllerService, describeVersion, describeVolume} from './controller-service.js'
import type {Engine} from './engine.js'
import type {EngineSlot} from './engine-slot.js'
import {handOver} from './handover/hand-over.js'

/**
 * ControllerService of an engine process, whether its volume is started or not. `opened` is called when a start has opened
 * the replicas: the frontend is its affair. `gone` ends this process when another one has taken over; without it none can.
 */
export function slotService(slot: EngineSlot, opened: (engine: Engine) => Promise<void>, gone?: () => never): Service {
  const idle = provide(ControllerServiceDefinition, {...idleHandlers(slot, opened), ...handOverHandlers(slot, gone)})
  let running: {readonly engine: Engine; readonly service: Service} | undefined
  const now = (): Service | undefined => {
    const {engine} = slot
    if (engine === undefined) return undefined
    if (running?.engine !== engine) running = {engine, service: controllerService(engine)}
    return running.service
  }
  const methods = idle.methods.map((method, index): ServedMethod => {
    const handle: ServedMethod['handle'] = (request, context) => {
      const service = now()
      const {name} = method.definition
      // Start and shutdown are the slot's in any case; all else is the volume's that is started.
      const handler = (service !== undefined && !SLOT_METHODS.has(name) ? service : idle).methods[index]?.handle
      if (handler !== undefined) return handler(request, context)
      if (service === undefined) throw new LonghornError('CONFLICT', `${name}: volume ${slot.volumeName} is not started; start it with its replicas first`)
      throw new LonghornError('UNSUPPORTED', `${name} is not provided by this process`)
    }
    return {definition: method.definition, handle}
  })
  return {definition: ControllerServiceDefinition, methods}
}

const SLOT_METHODS = new Set(['VolumeStart', 'VolumeShutdown', 'VolumeHandOver'])
const MAX_INT32 = 0x7fff_ffff

function handOverHandlers(slot: EngineSlot, gone: (() => never) | undefined): Handlers<typeof ControllerServiceDefinition> {
  return {
    async volumeHandOver({socket}) {
      const {engine, volumeName} = slot
      if (engine === undefined) throw new LonghornError('CONFLICT', `volume ${volumeName} is not started: there is nothing to hand over`)
      if (gone === undefined) throw new LonghornError('UNSUPPORTED', 'this process cannot hand over its volume')
      await handOver(engine, toText(socket, 'VolumeHandOver: socket'), gone)
      return {}
    },
  }
}

/** What is answered while the volume is not started, and what starts and ends it. */
function idleHandlers(slot: EngineSlot, opened: (engine: Engine) => Promise<void>): Handlers<typeof ControllerServiceDefinition> {
  const {settings} = slot
  const volume = async (): Promise<Volume> => describeIdle(slot)
  const present = async (): Promise<Volume> => {
    const {engine} = slot
    return engine === undefined ? volume() : describeVolume(engine)
  }
  return {
    async volumeStart({replicaAddresses, size, currentSize}) {
      if (replicaAddresses.length > 0) {
        const request = {
          replicas: replicaAddresses,
          sizeBytes: size === 0n ? undefined : toSize(size, 'VolumeStart: size'),
          currentSizeBytes: currentSize === 0n ? undefined : toSize(currentSize, 'VolumeStart: currentSize'),
        }
        await slot.start(request, opened)
      }
      return present()
    },
    async volumeShutdown() {
      await slot.shutdown()
      return present()
    },
    volumeGet: volume,
    async volumeFrontendShutdown() {
      return volume()
    },
    async volumeUnmapMarkSnapChainRemovedSet({enabled}) {
      settings.unmapMarkSnapChainRemoved = enabled
      return volume()
    },
    async volumeSnapshotMaxCountSet({count}) {
      settings.snapshotMaxCount = toInteger(count, 0, MAX_INT32, 'VolumeSnapshotMaxCountSet: count')
      return volume()
    },
    async volumeSnapshotMaxSizeSet({size}) {
      settings.snapshotMaxSizeBytes = toSize(size, 'VolumeSnapshotMaxSizeSet: size')
      return volume()
    },
    async replicaRebuildConcurrentSyncLimitSet({limit}) {
      settings.rebuildSyncLimit = toInteger(limit, 1, MAX_INT32, 'ReplicaRebuildConcurrentSyncLimitSet: limit')
      return {}
    },
    async replicaRebuildConcurrentSyncLimitGet() {
      return {limit: settings.rebuildSyncLimit}
    },
    async replicaList() {
      return {replicas: []}
    },
    async replicaGet({address}) {
      throw new LonghornError('NOT_FOUND', `this volume has no replica ${JSON.stringify(address.slice(0, 256))}`)
    },
    async replicaDelete() {
      return {}
    },
    async journalList() {
      return {}
    },
    async metricsGet(): Promise<MetricsGetResponse> {
      return {metrics: {readThroughput: 0n, writeThroughput: 0n, readLatency: 0n, writeLatency: 0n, readIOPS: 0n, writeIOPS: 0n}}
    },
    async versionDetailGet() {
      return {version: describeVersion()}
    },
  }
}

function describeIdle({volumeName, settings}: EngineSlot): Volume {
  return {
    name: volumeName,
    size: 0n,
    replicaCount: 0,
    endpoint: '',
    frontend: '',
    frontendState: 'down',
    isExpanding: false,
    lastExpansionError: '',
    lastExpansionFailedAt: '',
    unmapMarkSnapChainRemoved: settings.unmapMarkSnapChainRemoved,
    snapshotMaxCount: settings.snapshotMaxCount,
    snapshotMaxSize: BigInt(settings.snapshotMaxSizeBytes),
    deviceNotice: '',
  }
}
