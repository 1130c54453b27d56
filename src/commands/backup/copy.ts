import {Args, Flags} from '@oclif/core'
import {concurrencyFlag, startTransferProgress, withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'
import {formatSize} from '../../lib/sizes.js'

export default class BackupCopy extends BaseCommand {
  static override summary = 'Copy a backup to another store.'

  static override description = `Only blocks that the other store has not are sent, each checked on its way; an interrupted copy goes on when it is asked for again.
Both stores take their credentials from the same environment.`

  static override examples = ["<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?backup=NAME&volume=vol1' s3://bucket@eu-west-1/longhorn"]

  static override args = {
    url: Args.string({required: true, ignoreStdin: true, description: 'the backup: STORE?backup=NAME&volume=VOL'}),
    store: Args.string({required: true, ignoreStdin: true, description: 'the store to copy it to'}),
  }

  static override flags = {quiet: Flags.boolean({description: 'print nothing unless it fails'}), ...concurrencyFlag}

  async run(): Promise<{url: string; blocks: number; sent: number}> {
    const {args, flags} = await this.parse(BackupCopy)
    const {copyBackup} = await import('../../backup/copy.js')
    const {backupUrl} = await import('../../backup/target-url.js')
    return await withStore(args.url, 'backup', async (from, {volume, backup}) =>
      withStore(args.store, 'store', async to => {
        using shown = await startTransferProgress(`copying ${backup}`, flags.quiet)
        const {blocks, objectBytes} = await copyBackup(from, to, {volume, backup, concurrency: flags.concurrency, onProgress: shown.onProgress, signal: this.signal})
        shown.done()
        const url = backupUrl(to.url, volume, backup)
        if (!flags.quiet) this.log(`${url}: ${blocks} blocks, ${formatSize(objectBytes)} sent`)
        return {url, blocks, sent: objectBytes}
      }),
    )
  }
}
