import {Args} from '@oclif/core'
import {StoreCommand} from '../../../cli/upstream/store-command.js'

export default class UpstreamBackupInspect extends StoreCommand {
  static override summary = 'Show one backup, as upstream does.'

  static override examples = ["<%= config.bin %> backup inspect 'vfs:///mnt/backups?backup=NAME&volume=VOL'"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'URL of the backup'})}

  async run(): Promise<object> {
    const {args} = await this.parse(UpstreamBackupInspect)
    const {inspectedBackup} = await import('../../../backup/upstream-json.js')
    await this.store(args.url, 'backup', async (store, {volume, backup}) => this.printJson(await inspectedBackup(store, volume, backup, this.signal)))
    return {}
  }
}
