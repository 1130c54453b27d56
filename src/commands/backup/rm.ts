import {Args, Flags} from '@oclif/core'
import {withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'
import {LonghornError} from '../../lib/errors.js'
import {formatSize} from '../../lib/sizes.js'

interface Result {
  readonly backups: readonly string[]
  readonly blocks: number
  readonly bytes: number
  readonly blocksKept: string
}

export default class BackupRm extends BaseCommand {
  static override summary = 'Remove a backup, and what no other backup needs.'

  static override description = `Blocks that other backups have stay. Where it is not certain what is needed (an unfinished backup, a record that cannot be read) no block is removed, and the next
removal does it. Exit code 17 while the volume is being backed up or restored.`

  static override examples = ["<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?backup=NAME&volume=vol1'", "<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?volume=vol1' --clean"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'the backup: STORE?backup=NAME&volume=VOL'})}

  static override flags = {
    clean: Flags.boolean({exclusive: ['all'], description: 'remove no backup, but what interrupted ones have left'}),
    all: Flags.boolean({description: 'remove all backups of the volume, and what is known of it'}),
  }

  async run(): Promise<Result> {
    const {args, flags} = await this.parse(BackupRm)
    const {removeBackups, removeVolume} = await import('../../backup/remove.js')
    const wide = flags.clean || flags.all
    return await withStore(args.url, wide ? 'volume' : 'backup', async (store, {volume, backup}) => {
      if (wide && backup !== '') throw new LonghornError('USAGE', 'the URL names a backup: --clean and --all are for a volume')
      if (flags.all) {
        const objects = await removeVolume(store, volume, {signal: this.signal})
        this.log(`removed all of volume ${volume}, ${objects} objects`)
        return {backups: [], blocks: objects, bytes: 0, blocksKept: ''}
      }
      const removed = await removeBackups(store, {volume, backups: wide ? [] : [backup], signal: this.signal})
      const {blocks, bytes, blocksKept = '', dead} = removed
      const backups = [...removed.backups, ...dead]
      this.log(`removed ${backups.length === 0 ? 'no backup' : backups.join(', ')}, ${blocks} blocks (${formatSize(bytes)})${blocksKept === '' ? '' : `; blocks are kept: ${blocksKept}`}`)
      return {backups, blocks, bytes, blocksKept}
    })
  }
}
