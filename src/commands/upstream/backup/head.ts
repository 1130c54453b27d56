import {Args} from '@oclif/core'
import {StoreCommand} from '../../../cli/upstream/store-command.js'

export default class UpstreamBackupHead extends StoreCommand {
  static override summary = 'Show when the record of a backup or of a volume was written, as upstream does.'

  static override examples = ["<%= config.bin %> backup head 'vfs:///mnt/backups?backup=NAME&volume=VOL'"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'URL of the volume'})}

  async run(): Promise<object> {
    const {args} = await this.parse(UpstreamBackupHead)
    const {recordHead} = await import('../../../backup/upstream-json.js')
    await this.store(args.url, 'volume', async (store, {volume, backup}) => this.printJson(await recordHead(store, volume, backup || undefined, this.signal)))
    return {}
  }
}
