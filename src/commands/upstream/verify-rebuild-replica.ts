import {Args, Flags} from '@oclif/core'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'

export default class UpstreamVerifyRebuildReplica extends UpstreamCommand {
  static override summary = 'Have the engine check a replica that was rebuilt or restored, and take it into use.'

  static override description = 'Short: verify-rebuild.'

  static override examples = ['<%= config.bin %> verify-rebuild-replica tcp://10.0.0.6:10000']

  static override args = {address: Args.string({required: true, ignoreStdin: true, description: 'tcp://HOST:PORT of the replica'})}

  static override flags = {'replica-instance-name': Flags.string({default: '', description: 'name of the replica instance; another one is refused'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamVerifyRebuildReplica)
    await using engine = this.engine(flags)
    await engine.replicaVerifyRebuild({address: args.address, instanceName: flags['replica-instance-name']}, {signal: this.signal})
    return {}
  }
}
