import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {formatAddress, parseAddress} from '../../lib/address.js'

export default class ReplicaRm extends BaseCommand {
  static override summary = 'Take a replica out of a volume. Its directory stays as it is.'

  static override description = `One that is not of the volume is success. The last one that can be used is not taken out while a frontend is up.`

  static override examples = ['<%= config.bin %> <%= command.id %> tcp://10.0.0.7:10000 --engine 10.0.0.5:9501']

  static override args = {
    address: Args.string({required: true, ignoreStdin: true, description: 'tcp://HOST:PORT of the replica'}),
  }

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{address: string}> {
    const {args, flags} = await this.parse(ReplicaRm)
    // As the engine has it: another way to write it would be a replica that the volume has not.
    const address = formatAddress(parseAddress(args.address))
    await using engine = connectEngine(flags.engine, flags.volume)
    await engine.replicaDelete({address, instanceName: ''}, {signal: this.signal})
    return {address}
  }
}
