import {Args, Flags} from '@oclif/core'
import {withStore} from '../../../cli/backup-target.js'
import {restoreOnReplicas} from '../../../cli/upstream/restore.js'
import {goJson, UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {LonghornError, messageOf} from '../../../lib/errors.js'

export default class UpstreamBackupRestore extends UpstreamCommand {
  static override summary = 'Begin to restore a backup into the volume, as upstream does.'

  static override examples = ["<%= config.bin %> --url http://10.0.0.5:9501 backup restore 'vfs:///mnt/backups?backup=NAME&volume=VOL'"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'URL of the backup'})}

  static override flags = {
    'concurrent-limit': Flags.integer({default: 1, min: 1, description: 'blocks at once, of each replica'}),
    'need-correct-encrypted-volume-size': Flags.boolean({description: 'the volume has 16 MiB more than the backup'}),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamBackupRestore)
    await using engine = this.engine(flags)
    const sizeOf = (): Promise<number> =>
      withStore(args.url, 'backup', async (store, {volume, backup}) => {
        const {openBackup} = await import('../../../backup/catalog.js')
        return (await openBackup(store, volume, backup, this.signal)).volume.sizeBytes
      })
    const failures = await restoreOnReplicas(engine, {
      url: args.url,
      volumeName: flags['volume-name'],
      concurrency: flags['concurrent-limit'],
      encrypted: flags['need-correct-encrypted-volume-size'],
      sizeOf,
      signal: this.signal,
    }).catch((error: unknown) => {
      // Upstream prints the reason on stdout, too.
      this.log(messageOf(error))
      throw error
    })
    if (failures.length === 0) return {}
    this.log(goJson({ReplicaErrors: failures.map(({address, reason}) => ({Address: address, Message: messageOf(reason)}))}))
    throw new LonghornError('IO', failures.map(({address, reason}) => `${address}: ${messageOf(reason)}`).join('; '))
  }
}
