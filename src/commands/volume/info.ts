import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {formatSize} from '../../lib/sizes.js'

interface VolumeInfo {
  readonly name: string
  readonly size: number
  readonly replicaCount: number
  readonly frontend: string
  readonly frontendState: string
  readonly endpoint: string
}

export default class VolumeInfoCommand extends BaseCommand {
  static override summary = 'Show a volume: its size, replicas and how it is served.'

  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> vol1 --engine 10.0.0.5:9501 --json',
  ]

  static override args = {
    volume: Args.string({ignoreStdin: true, description: 'name of the volume; an engine of another volume is refused'}),
  }

  static override flags = {...engineFlags}

  async run(): Promise<VolumeInfo> {
    const {args, flags} = await this.parse(VolumeInfoCommand)
    await using engine = connectEngine(flags.engine, args.volume)
    const {name, size, replicaCount, frontend, frontendState, endpoint} = await engine.volumeGet({}, {signal: this.signal})
    const bytes = Number(size)
    this.log(`name      ${name}`)
    this.log(`size      ${formatSize(bytes)} (${bytes} bytes)`)
    this.log(`replicas  ${replicaCount}`)
    this.log(`frontend  ${frontend === '' ? 'none' : `${frontend} (${frontendState})`}`)
    if (endpoint !== '') this.log(`endpoint  ${endpoint}`)
    return {name, size: bytes, replicaCount, frontend, frontendState, endpoint}
  }
}
