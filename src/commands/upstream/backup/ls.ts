import {Args, Flags} from '@oclif/core'
import {StoreCommand} from '../../../cli/upstream/store-command.js'
import {inKeyOrder} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamBackupLs extends StoreCommand {
  static override summary = 'List the volumes of a store and the names of their backups, as upstream does.'

  static override examples = ['<%= config.bin %> backup ls --volume-only vfs:///mnt/backups']

  static override args = {target: Args.string({required: true, ignoreStdin: true, description: 'the store'})}

  static override flags = {
    volume: Flags.string({default: '', description: 'only this volume'}),
    'volume-only': Flags.boolean({description: 'without the names of backups'}),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamBackupLs)
    const {listVolumes} = await import('../../../backup/catalog.js')
    const {listedVolume} = await import('../../../backup/upstream-json.js')
    const {checkName} = await import('../../../backup/target-url.js')
    await this.store(args.target, 'store', async store => {
      const volumes = flags.volume === '' ? await listVolumes(store, this.signal) : [checkName(flags.volume, 'volume')]
      const listed: [string, object][] = []
      for (const volume of volumes) listed.push([volume, await listedVolume(store, volume, flags['volume-only'], this.signal)])
      this.printJson(inKeyOrder(listed))
    })
    return {}
  }
}
