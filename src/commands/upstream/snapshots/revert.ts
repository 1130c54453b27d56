import {Args} from '@oclif/core'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamSnapshotsRevert extends UpstreamCommand {
  static override summary = 'Make a volume what it was when a snapshot was taken.'

  static override examples = ['<%= config.bin %> snapshots revert before-upgrade']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamSnapshotsRevert)
    await using engine = this.engine(flags)
    await engine.volumeRevert({name: args.name}, {signal: this.signal})
    return {}
  }
}
