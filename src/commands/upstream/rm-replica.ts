import {Args} from '@oclif/core'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'

export default class UpstreamRmReplica extends UpstreamCommand {
  static override summary = 'Take a replica out of a volume.'

  static override description = 'It is closed; its files stay. The last one that can be used is kept while a frontend is up. Short: rm.'

  static override examples = ['<%= config.bin %> rm-replica tcp://10.0.0.6:10000']

  static override args = {address: Args.string({required: true, ignoreStdin: true, description: 'tcp://HOST:PORT of the replica'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamRmReplica)
    await using engine = this.engine(flags)
    await engine.replicaDelete({address: args.address}, {signal: this.signal})
    return {}
  }
}
