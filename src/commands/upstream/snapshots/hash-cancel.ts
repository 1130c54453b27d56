import {Args} from '@oclif/core'
import {listReplicas, onEachReplica, withAgent} from '../../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamSnapshotsHashCancel extends UpstreamCommand {
  static override summary = 'Stop computing the checksum of a snapshot.'

  static override examples = ['<%= config.bin %> snapshots hash-cancel monday']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamSnapshotsHashCancel)
    await using engine = this.engine(flags)
    await onEachReplica(await listReplicas(engine, this.signal), async replica => {
      await withAgent(replica, flags['volume-name'], agent => agent.snapshotHashCancel({snapshotName: args.name}, {signal: this.signal}))
    })
    return {}
  }
}
