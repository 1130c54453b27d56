import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'

export default class FrontendStart extends BaseCommand {
  static override summary = 'Serve a volume whose engine runs without a frontend.'

  static override description = 'It listens where this kind of frontend does by default. The one that is up already is success, another one is refused.'

  static override examples = ['<%= config.bin %> <%= command.id %> nbd']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'kind of frontend: nbd, iscsi, blockdev or socket'})}

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{frontend: string; endpoint: string}> {
    const {args, flags} = await this.parse(FrontendStart)
    await using engine = connectEngine(flags.engine, flags.volume)
    const {frontend, endpoint} = await engine.volumeFrontendStart({frontend: args.name}, {signal: this.signal})
    this.log(`${frontend} is up: ${endpoint}`)
    return {frontend, endpoint}
  }
}
