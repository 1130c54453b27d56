import {LonghornError} from '../lib/errors.js'
import {toSize, toText} from '../protocol/grpc/fields.js'
import type {Handlers} from '../protocol/grpc/service.js'
import {ReplicaMode, type ControllerReplica, type ControllerServiceDefinition, type ReplicaRebuildInfo} from '../protocol/proto/generated/controller.js'
import type {Engine} from './engine.js'
import type {RebuildInfo} from './rebuild.js'
import type {ReplicaStatus} from './replica-set.js'

/**
 * The methods of ControllerService that take replicas in. Upstream's clients lead a rebuild step by step (reference: engine-interop 4.3);
 * here the first of those steps begins one that needs no leading, there is nothing for the client to copy, and the last waits for the end.
 */
export function rebuildHandlers(engine: Engine) {
  return {
    async replicaAdd({address, bytesPerSecond}) {
      const rate = toSize(bytesPerSecond, 'ReplicaAdd: bytes_per_second')
      return controllerReplica(await engine.addReplica(toText(address, 'ReplicaAdd: address'), rate))
    },
    async replicaRebuildList() {
      return {rebuilds: engine.rebuilds.map(rebuildMessage)}
    },
    async controllerReplicaCreate({address, snapshotRequired}) {
      if (!snapshotRequired) {
        throw new LonghornError('UNSUPPORTED', 'ControllerReplicaCreate: a replica that is to be restored from a backup cannot be taken in by this engine')
      }
      return controllerReplica(await engine.addReplica(toText(address, 'ControllerReplicaCreate: address')))
    },
    async replicaPrepareRebuild({address}) {
      return {replica: controllerReplica(engine.findReplica(toText(address, 'ReplicaPrepareRebuild: address'))), syncFileInfoList: []}
    },
    async replicaVerifyRebuild({address}, {signal}) {
      return controllerReplica(await engine.rebuilt(toText(address, 'ReplicaVerifyRebuild: address'), signal))
    },
  } satisfies Handlers<typeof ControllerServiceDefinition>
}

export function controllerReplica({address, mode}: ReplicaStatus): ControllerReplica {
  return {address: {address, instanceName: ''}, mode: ReplicaMode[mode]}
}

function rebuildMessage({done, total, copied, elapsedMs, sources, ...rest}: RebuildInfo): ReplicaRebuildInfo {
  return {...rest, sources: [...sources], done: BigInt(done), total: BigInt(total), copied: BigInt(copied), elapsedMs: BigInt(Math.round(elapsedMs))}
}
