import {Args, Flags} from '@oclif/core'
import {parseLabels} from '../../../cli/flags.js'
import {printable} from '../../../cli/upstream/tab-table.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamSnapshotsCreate extends UpstreamCommand {
  static override summary = 'Take a snapshot of a volume, and print its name.'

  static override examples = ['<%= config.bin %> snapshots create before-upgrade --label app=db']

  static override args = {name: Args.string({ignoreStdin: true, description: 'name of the snapshot; one is made up when it is left out'})}

  static override flags = {
    label: Flags.string({multiple: true, multipleNonGreedy: true, helpValue: 'KEY=VALUE', description: 'a label to keep with it; may be repeated'}),
    'freeze-fs': Flags.boolean({description: 'freeze the file system on the volume meanwhile'}),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamSnapshotsCreate)
    const labels = parseLabels(flags.label ?? [], '--label')
    await using engine = this.engine(flags)
    const request = {name: args.name ?? '', labels, freezeFilesystem: flags['freeze-fs']}
    const {name} = await engine.volumeSnapshot(request, {signal: this.signal})
    this.log(printable(name))
    return {}
  }
}
