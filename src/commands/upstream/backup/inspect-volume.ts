import {Args} from '@oclif/core'
import {StoreCommand} from '../../../cli/upstream/store-command.js'

export default class UpstreamBackupInspectVolume extends StoreCommand {
  static override summary = 'Show what is recorded of a volume in a store, as upstream does.'

  static override examples = ["<%= config.bin %> backup inspect-volume 'vfs:///mnt/backups?backup=NAME&volume=VOL'"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'URL of the volume'})}

  async run(): Promise<object> {
    const {args} = await this.parse(UpstreamBackupInspectVolume)
    const {inspectedVolume} = await import('../../../backup/upstream-json.js')
    await this.store(args.url, 'volume', async (store, {volume}) => this.printJson(await inspectedVolume(store, volume, this.signal)))
    return {}
  }
}
