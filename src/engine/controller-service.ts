import {LonghornError} from '../lib/errors.js'
import {versionInfo} from '../lib/version-info.js'
import {toSize, toText} from '../protocol/grpc/fields.js'
import {provide, type Service} from '../protocol/grpc/service.js'
import {ControllerServiceDefinition, type VersionOutput, type Volume} from '../protocol/proto/generated/controller.js'
import {maintenanceHandlers} from './controller-maintenance.js'
import {controllerReplica, rebuildHandlers} from './controller-rebuild.js'
import {restoreHandlers} from './controller-restore.js'
import type {Engine} from './engine.js'

/** ControllerService (reference: engine-interop 3.4) over one engine; slot-service.ts has what starts and ends it. */
export function controllerService(engine: Engine): Service {
  const volume = (): Volume => describeVolume(engine)
  return provide(ControllerServiceDefinition, {
    ...maintenanceHandlers(engine, volume),
    ...rebuildHandlers(engine),
    ...restoreHandlers(engine),
    async volumeGet() {
      return volume()
    },
    async volumeFrontendStart({frontend}) {
      if (frontend === '') throw new LonghornError('USAGE', 'VolumeFrontendStart: frontend is missing')
      await engine.startFrontend(frontend)
      return volume()
    },
    async volumeFrontendShutdown() {
      await engine.stopFrontend()
      return volume()
    },
    async volumeSnapshot({name, labels, freezeFilesystem}) {
      return {name: await engine.takeSnapshot(name === '' ? undefined : name, Object.fromEntries(labels), {freeze: freezeFilesystem})}
    },
    async volumeExpand({size}) {
      await engine.expand(toSize(size, 'VolumeExpand: size'))
      return volume()
    },
    async volumeRevert({name}) {
      await engine.revert(toText(name, 'VolumeRevert: name'))
      return volume()
    },
    async replicaList() {
      return {replicas: engine.replicas.map(controllerReplica)}
    },
    async replicaGet({address}) {
      const found = engine.replicas.find(replica => replica.address === address)
      if (found === undefined) throw new LonghornError('NOT_FOUND', `this volume has no replica ${JSON.stringify(address.slice(0, 256))}`)
      return controllerReplica(found)
    },
    async volumeScrub() {
      await engine.scrub.start()
      return {}
    },
    async volumeScrubStatus() {
      const {found, healed, layers, findings, ...status} = engine.scrub.status
      return {
        ...status,
        findings: findings.map(({offset, length, ...finding}) => ({...finding, offset: BigInt(offset), length: BigInt(length)})),
        found: BigInt(found),
        healed: BigInt(healed),
        layers: BigInt(layers),
        readRepairs: BigInt(engine.volume.repairs.counts.repaired),
      }
    },
    async volumeScrubCancel() {
      engine.scrub.cancel()
      return {}
    },
    async versionDetailGet() {
      return {version: describeVersion()}
    },
  })
}

/** What this process says of itself. */
export function describeVersion(): VersionOutput {
  const info = versionInfo()
  return {
    ...info,
    cliAPIVersion: BigInt(info.cliAPIVersion),
    cliAPIMinVersion: BigInt(info.cliAPIMinVersion),
    controllerAPIVersion: BigInt(info.controllerAPIVersion),
    controllerAPIMinVersion: BigInt(info.controllerAPIMinVersion),
    dataFormatVersion: BigInt(info.dataFormatVersion),
    dataFormatMinVersion: BigInt(info.dataFormatMinVersion),
  }
}

export function describeVolume(engine: Engine): Volume {
  const {frontend, volume, settings} = engine
  return {
    name: volume.name,
    size: BigInt(volume.sizeBytes),
    replicaCount: engine.replicas.length,
    endpoint: frontend?.endpoint ?? '',
    frontend: frontend?.name ?? '',
    frontendState: frontend === undefined ? 'down' : 'up',
    isExpanding: false,
    lastExpansionError: '',
    lastExpansionFailedAt: '',
    unmapMarkSnapChainRemoved: settings.unmapMarkSnapChainRemoved,
    snapshotMaxCount: settings.snapshotMaxCount,
    snapshotMaxSize: BigInt(settings.snapshotMaxSizeBytes),
    deviceNotice: frontend?.notice ?? '',
  }
}
