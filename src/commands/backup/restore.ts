import {Args, Flags} from '@oclif/core'
import {concurrencyFlag, startTransferProgress, withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {beginRestore, waitForRestore, type RestoreReport} from '../../cli/volume-restore.js'
import {LonghornError} from '../../lib/errors.js'
import {formatSize} from '../../lib/sizes.js'

interface RestoredFile {
  readonly file: string
  readonly size: number
  readonly read: number
}

export default class BackupRestore extends BaseCommand {
  static override summary = 'Restore a backup into a volume, or to a file.'

  static override description = `Into a volume: that of the engine, which must have no frontend up and be as large as the backup's at least. All replicas fetch it, each block checked, beside what the volume holds; when they have it
all, it takes that place at once. A volume that holds an earlier backup and was not written since gets only what differs: a standby that follows. The restore goes on when this command ends.
To a file (--to-file): a raw image, sparse, which appears under its name only when it is complete.`

  static override examples = [
    "<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?backup=NAME&volume=vol1' --engine 10.0.0.5:9501",
    "<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?backup=NAME&volume=vol1' --to-file vol1.img",
  ]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'the backup: STORE?backup=NAME&volume=VOL'})}

  static override flags = {
    ...engineFlags,
    ...volumeFlag,
    replace: Flags.boolean({description: 'give up the data that the volume has'}),
    detach: Flags.boolean({description: 'do not wait until it is complete; see backup restore-status'}),
    'to-file': Flags.string({helpValue: 'FILE', exclusive: ['volume', 'replace', 'detach'], description: 'restore to a file, without an engine'}),
    force: Flags.boolean({dependsOn: ['to-file'], description: 'replace the file if there is one, when the restore is complete'}),
    quiet: Flags.boolean({description: 'print nothing unless it fails'}),
    ...concurrencyFlag,
  }

  async run(): Promise<RestoredFile | RestoreReport | {backup: string}> {
    const {args, flags} = await this.parse(BackupRestore)
    const file = flags['to-file']
    if (file !== undefined) return await this.#toFile(args.url, file, flags)
    const {parseTargetUrl} = await import('../../backup/target-url.js')
    const {target, backup} = parseTargetUrl(args.url)
    if (backup === undefined) throw new LonghornError('USAGE', `${target}: which backup? Expected '${target}?backup=NAME&volume=VOL'`)
    await using engine = connectEngine(flags.engine, flags.volume)
    await beginRestore(engine, {backup: args.url, concurrency: flags.concurrency, replace: flags.replace, signal: this.signal})
    if (flags.detach) {
      if (!flags.quiet) this.log(`the restore of ${backup} has begun`)
      return {backup}
    }
    using shown = await startTransferProgress(`restoring ${backup}`, flags.quiet)
    const report = await waitForRestore(engine, this.signal, shown.onProgress)
    shown.done()
    const complete = report.replicas.filter(({state}) => state === 'complete')
    if (!flags.quiet) {
      const blocks = Math.max(0, ...complete.map(replica => replica.totalBlocks))
      this.log(`${backup} ${report.incremental ? 'incremental' : 'full'}, ${blocks} blocks, on ${complete.length} replica${complete.length === 1 ? '' : 's'}`)
      for (const {address, error} of report.replicas) if (error !== '') this.log(`${address} is out, rebuild it (longhorn replica add): ${error}`)
    }
    return report
  }

  async #toFile(url: string, file: string, {quiet, concurrency, force}: {quiet: boolean; concurrency: number; force: boolean}): Promise<RestoredFile> {
    const {restoreToFile} = await import('../../backup/restore-file.js')
    return await withStore(url, 'backup', async (store, {volume, backup}) => {
      using shown = await startTransferProgress(`restoring ${backup}`, quiet)
      const {sizeBytes, progress} = await restoreToFile(store, file, {volume, backup, concurrency, force, onProgress: shown.onProgress, signal: this.signal})
      shown.done()
      if (!quiet) this.log(`${file}: ${formatSize(sizeBytes)}, ${progress.blocks} blocks`)
      return {file, size: sizeBytes, read: progress.objectBytes}
    })
  }
}
