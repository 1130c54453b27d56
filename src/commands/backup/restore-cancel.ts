import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'

export default class BackupRestoreCancel extends BaseCommand {
  static override summary = 'End the restore of a backup into a volume, or give up one that failed.'

  static override description = `The volume is then what it was before, and can be used: what was fetched never was part of it. A restore that is complete stays.`

  static override examples = ['<%= config.bin %> <%= command.id %> --engine 10.0.0.5:9501']

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{cancelled: true}> {
    const {flags} = await this.parse(BackupRestoreCancel)
    await using engine = connectEngine(flags.engine, flags.volume)
    await engine.volumeRestoreCancel({}, {signal: this.signal, timeoutMs: 180_000})
    this.log('there is no unfinished restore any more')
    return {cancelled: true}
  }
}
