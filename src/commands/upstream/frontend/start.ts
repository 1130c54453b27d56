import {Args} from '@oclif/core'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamFrontendStart extends UpstreamCommand {
  static override summary = 'Serve a volume whose engine runs without a frontend.'

  static override examples = ['<%= config.bin %> --url http://10.0.0.5:9501 frontend start nbd']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'kind of frontend'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamFrontendStart)
    await using engine = this.engine(flags)
    await engine.volumeFrontendStart({frontend: args.name}, {signal: this.signal})
    return {}
  }
}
