import {Args, Flags} from '@oclif/core'
import {StoreCommand} from '../../../cli/upstream/store-command.js'

export default class UpstreamBackupRm extends StoreCommand {
  static override summary = 'Remove a backup, or with --volume all of a volume, as upstream does.'

  static override examples = ["<%= config.bin %> backup rm 'vfs:///mnt/backups?backup=NAME&volume=VOL'", '<%= config.bin %> backup rm --volume VOL vfs:///mnt/backups']

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'URL of the backup, or of the store'})}

  static override flags = {volume: Flags.string({default: '', description: 'remove this volume from the store'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamBackupRm)
    const {removeBackups, removeVolume} = await import('../../../backup/remove.js')
    const {checkName} = await import('../../../backup/target-url.js')
    await this.store(args.url, flags.volume === '' ? 'backup' : 'store', async (store, {volume, backup}) => {
      if (flags.volume === '') await removeBackups(store, {volume, backups: [backup], signal: this.signal})
      else await removeVolume(store, checkName(flags.volume, 'volume'), {signal: this.signal})
    })
    return {}
  }
}
