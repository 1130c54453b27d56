import {Flags} from '@oclif/core'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'
import {toSize} from '../../protocol/grpc/fields.js'

export default class UpstreamExpand extends UpstreamCommand {
  static override summary = 'Make a volume larger while it is being used.'

  static override examples = ['<%= config.bin %> expand --size 21474836480']

  static override flags = {size: Flags.string({required: true, helpValue: 'BYTES', description: 'the new size in bytes; a multiple of 4096'})}

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamExpand)
    const size = BigInt(toSize(flags.size, '--size'))
    await using engine = this.engine(flags)
    await engine.volumeExpand({size}, {signal: this.signal})
    return {}
  }
}
