import {Args, Flags} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {parseLabels, volumeFlag} from '../../cli/flags.js'

export default class SnapshotCreate extends BaseCommand {
  static override summary = 'Take a snapshot of a volume while it is being used.'

  static override description = `Everything that was acknowledged before is in it, on every replica the same; writing stands still for milliseconds.
What a mounted file system still has in memory is not; with --freeze it is, and the snapshot can be used without a repair. Prints the name.`

  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> before-upgrade --label app=db --engine 10.0.0.5:9501',
  ]

  static override args = {
    name: Args.string({ignoreStdin: true, description: 'name of the snapshot; one is made up when it is left out'}),
  }

  static override flags = {
    ...engineFlags,
    ...volumeFlag,
    freeze: Flags.boolean({description: 'freeze the file system on the volume meanwhile; for volumes that the engine serves as a block device of its host'}),
    label: Flags.string({multiple: true, helpValue: 'KEY=VALUE', description: 'a label to keep with it; may be repeated'}),
  }

  async run(): Promise<{name: string}> {
    const {args, flags} = await this.parse(SnapshotCreate)
    const labels = parseLabels(flags.label ?? [], '--label')
    await using engine = connectEngine(flags.engine, flags.volume)
    const {name} = await engine.volumeSnapshot({name: args.name ?? '', labels, freezeFilesystem: flags.freeze}, {signal: this.signal})
    this.log(name)
    return {name}
  }
}
