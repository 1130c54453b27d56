import {Args} from '@oclif/core'
import {sizeFlag} from '../../cli/flags.js'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'
import {LonghornError} from '../../lib/errors.js'

export default class UpstreamStartWithReplicas extends UpstreamCommand {
  static override summary = 'Name its replicas to an engine that was started without any.'

  static override description = 'Short: start.'

  static override examples = ['<%= config.bin %> start-with-replicas tcp://10.0.0.5:10000 tcp://10.0.0.6:10000 --size 10g --current-size 10g']

  static override strict = false

  static override args = {address: Args.string({required: true, ignoreStdin: true, description: 'tcp://HOST:PORT of a replica; may be repeated'})}

  static override flags = {
    size: sizeFlag({required: true, description: 'size of the volume, e.g. 512m, 10g'}),
    'current-size': sizeFlag({required: true, description: 'the size it has now, when an expansion was cut short; else the same'}),
  }

  async run(): Promise<object> {
    const {argv, flags} = await this.parse(UpstreamStartWithReplicas)
    await using engine = this.engine(flags)
    const {replicaCount} = await engine.volumeGet({}, {signal: this.signal})
    if (replicaCount !== 0) throw new LonghornError('CONFLICT', 'the volume is up already: replicas are added to it one by one')
    const request = {replicaAddresses: argv as string[], size: BigInt(flags.size), currentSize: BigInt(flags['current-size'])}
    await engine.volumeStart(request, {signal: this.signal})
    return {}
  }
}
