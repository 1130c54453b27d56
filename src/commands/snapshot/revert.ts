import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'

export default class SnapshotRevert extends BaseCommand {
  static override summary = 'Make a volume what it was when a snapshot was taken.'

  static override description = `What was written since the newest snapshot is lost; take one first to keep it. Snapshots after this one stay.
Nobody may be using the volume: it is refused while a frontend is up.`

  static override examples = ['<%= config.bin %> <%= command.id %> before-upgrade']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{name: string; reverted: true}> {
    const {args, flags} = await this.parse(SnapshotRevert)
    await using engine = connectEngine(flags.engine, flags.volume)
    await engine.volumeRevert({name: args.name}, {signal: this.signal})
    this.log(`the volume is what it was at ${args.name}`)
    return {name: args.name, reverted: true}
  }
}
