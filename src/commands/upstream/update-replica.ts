import {Args, Flags} from '@oclif/core'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'
import {ReplicaMode} from '../../protocol/proto/generated/controller.js'

const MODES = ['WO', 'RW', 'ERR'] as const

export default class UpstreamUpdateReplica extends UpstreamCommand {
  static override summary = 'Change the mode of a replica.'

  static override description = 'Engines of this program take ERR only, which puts a replica out of use until it is rebuilt. Short: update.'

  static override examples = ['<%= config.bin %> update-replica tcp://10.0.0.6:10000 --mode ERR']

  static override args = {address: Args.string({required: true, ignoreStdin: true, description: 'tcp://HOST:PORT of the replica'})}

  static override flags = {mode: Flags.string({required: true, options: MODES, description: 'the new mode'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamUpdateReplica)
    await using engine = this.engine(flags)
    const mode = ReplicaMode[flags.mode as (typeof MODES)[number]]
    await engine.replicaUpdate({address: {address: args.address, instanceName: ''}, mode}, {signal: this.signal})
    return {}
  }
}
