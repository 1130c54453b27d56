import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamFrontendShutdown extends UpstreamCommand {
  static override summary = 'Stop serving a volume; its engine and replicas go on.'

  static override examples = ['<%= config.bin %> --url http://10.0.0.5:9501 frontend shutdown']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamFrontendShutdown)
    await using engine = this.engine(flags)
    await engine.volumeFrontendShutdown({}, {signal: this.signal})
    return {}
  }
}
