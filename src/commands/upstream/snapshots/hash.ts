import {Args, Flags} from '@oclif/core'
import {askReplica, listReplicas, onEachReplica, withAgent} from '../../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {LonghornError} from '../../../lib/errors.js'

/** Upstream's manager looks for these words, and asks again later. */
const NOT_NOW = 'cannot request hashing snapshot because'

export default class UpstreamSnapshotsHash extends UpstreamCommand {
  static override summary = 'Begin to compute the checksum of a snapshot on every replica.'

  static override examples = ['<%= config.bin %> snapshots hash monday --rehash']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  static override flags = {rehash: Flags.boolean({description: 'also where there is a checksum already'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamSnapshotsHash)
    const volumeName = flags['volume-name']
    await using engine = this.engine(flags)
    const replicas = await listReplicas(engine, this.signal)
    for (const replica of replicas) {
      const {address, mode} = replica
      if (mode !== 'RW') throw new LonghornError('BUSY', `${NOT_NOW} ${address} is in ${mode} mode`)
      if ((await askReplica(replica, volumeName, this.signal)).rebuilding) throw new LonghornError('BUSY', `${NOT_NOW} ${address} is rebuilding`)
      const {isLocked} = await withAgent(replica, volumeName, agent => agent.snapshotHashLockState({}, {signal: this.signal}))
      if (isLocked) throw new LonghornError('BUSY', `${NOT_NOW} ${address} is hashing snapshot`)
    }
    await onEachReplica(replicas, async replica => {
      await withAgent(replica, volumeName, agent => agent.snapshotHash({snapshotName: args.name, rehash: flags.rehash}, {signal: this.signal}))
    })
    return {}
  }
}
