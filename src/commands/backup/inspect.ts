import {Args} from '@oclif/core'
import {withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'

export default class BackupInspect extends BaseCommand {
  static override summary = 'Show what is recorded of a backup, or of a volume in a store.'

  static override examples = ["<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?backup=NAME&volume=vol1'"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'STORE?backup=NAME&volume=VOL, or STORE?volume=VOL'})}

  async run(): Promise<object> {
    const {args} = await this.parse(BackupInspect)
    const {inspectedBackup, inspectedVolume} = await import('../../backup/upstream-json.js')
    return await withStore(args.url, 'volume', async (store, {volume, backup}) => {
      const shown = backup === '' ? await inspectedVolume(store, volume, this.signal) : await inspectedBackup(store, volume, backup, this.signal)
      this.log(JSON.stringify(shown, undefined, 2))
      return shown
    })
  }
}
