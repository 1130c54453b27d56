import {Args, Flags} from '@oclif/core'
import {concurrencyFlag, startTransferProgress, withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'
import {formatSize} from '../../lib/sizes.js'

export default class BackupRestore extends BaseCommand {
  static override summary = 'Restore a backup to a file.'

  static override description = `The file is a raw image of the volume, sparse. Every block is checked; the file appears under its name only when it is complete, so an interrupted restore
leaves nothing that could be taken for one.`

  static override examples = ["<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?backup=NAME&volume=vol1' --to-file vol1.img"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'the backup: STORE?backup=NAME&volume=VOL'})}

  static override flags = {
    'to-file': Flags.string({required: true, helpValue: 'FILE', description: 'where to restore to'}),
    force: Flags.boolean({description: 'replace the file if there is one, when the restore is complete'}),
    quiet: Flags.boolean({description: 'print nothing unless it fails'}),
    ...concurrencyFlag,
  }

  async run(): Promise<{file: string; size: number; read: number}> {
    const {args, flags} = await this.parse(BackupRestore)
    const {restoreToFile} = await import('../../backup/restore-file.js')
    const file = flags['to-file']
    return await withStore(args.url, 'backup', async (store, {volume, backup}) => {
      using shown = await startTransferProgress(`restoring ${backup}`, flags.quiet)
      const {sizeBytes, progress} = await restoreToFile(store, file, {volume, backup, concurrency: flags.concurrency, force: flags.force, onProgress: shown.onProgress, signal: this.signal})
      shown.done()
      if (!flags.quiet) this.log(`${file}: ${formatSize(sizeBytes)}, ${progress.blocks} blocks`)
      return {file, size: sizeBytes, read: progress.objectBytes}
    })
  }
}
