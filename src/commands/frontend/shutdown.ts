import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'

export default class FrontendShutdown extends BaseCommand {
  static override summary = 'Stop serving a volume; its engine and replicas go on.'

  static override description = 'Requests in flight are finished, and the initiators are disconnected. Success when nothing is up.'

  static override examples = ['<%= config.bin %> <%= command.id %> --engine 10.0.0.5:9501']

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{frontendState: string}> {
    const {flags} = await this.parse(FrontendShutdown)
    await using engine = connectEngine(flags.engine, flags.volume)
    const {frontendState} = await engine.volumeFrontendShutdown({}, {signal: this.signal})
    this.log('nothing is served')
    return {frontendState}
  }
}
