import {toInteger, toText} from '../protocol/grpc/fields.js'
import type {Handlers} from '../protocol/grpc/service.js'
import type {ControllerServiceDefinition} from '../protocol/proto/generated/controller.js'
import type {Engine} from './engine.js'

const MAX_WORKERS = 64

/** The methods of ControllerService that restore backups. */
export function restoreHandlers({restore}: Engine) {
  return {
    async volumeRestore({backup, credential, concurrentLimit, replace}) {
      const concurrency = toInteger(concurrentLimit, 0, MAX_WORKERS, 'VolumeRestore: concurrent_limit')
      await restore.start({backup: toText(backup, 'VolumeRestore: backup'), credential, concurrency}, replace)
      return {}
    },
    async volumeRestoreStatus() {
      const {replicas, ...status} = await restore.status()
      const counts = replicas.map(({blocks, totalBlocks, volumeBytes, objectBytes, ...rest}) => ({
        ...rest,
        blocks: BigInt(blocks),
        totalBlocks: BigInt(totalBlocks),
        volumeBytes: BigInt(volumeBytes),
        objectBytes: BigInt(objectBytes),
      }))
      return {...status, replicas: counts}
    },
    async volumeRestoreCancel() {
      await restore.cancel()
      return {}
    },
  } satisfies Handlers<typeof ControllerServiceDefinition>
}
