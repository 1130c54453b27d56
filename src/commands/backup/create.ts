import {Args, Flags} from '@oclif/core'
import {startTransferProgress, withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {parseLabels} from '../../cli/flags.js'
import {afterBackup, backUpVolume, retainBackups, type MadeBackup} from '../../cli/volume-backup.js'
import {LonghornError} from '../../lib/errors.js'
import {formatSize} from '../../lib/sizes.js'

const MIB = 1024 ** 2

export default class BackupCreate extends BaseCommand {
  static override summary = 'Back a volume up to a store, while it is being used.'

  static override description = `Takes a snapshot and stores what was written since the last backup's; the snapshot stays as the base of the next one. A replica does the work. What the store has already is not
sent again, so a run that failed goes on where it was. For cron: one line at the end (nothing with --quiet), never two at once for one volume and store (exit code 17), and
--retain removes the oldest backups that this command has made. Credentials of the store come from the environment.`

  static override examples = ['<%= config.bin %> <%= command.id %> vol1 --dest vfs:///mnt/backups --retain 7 --label tier=gold --quiet']

  static override args = {volume: Args.string({required: true, ignoreStdin: true, description: 'name of the volume; an engine of another volume is refused'})}

  static override flags = {
    ...engineFlags,
    dest: Flags.string({required: true, helpValue: 'URL', description: 'the store: vfs:///path, nfs://server:/path or s3://bucket@region/path'}),
    snapshot: Flags.string({helpValue: 'NAME', description: 'back this snapshot up instead of taking one'}),
    name: Flags.string({helpValue: 'NAME', description: 'name of the backup; one is made up when it is left out'}),
    label: Flags.string({multiple: true, helpValue: 'KEY=VALUE', description: 'a label to keep with it; may be repeated'}),
    retain: Flags.integer({min: 1, helpValue: 'N', description: 'then remove the oldest backups of the volume that this command made, but for N'}),
    compression: Flags.string({options: ['lz4', 'gzip', 'none'], default: 'lz4', description: "of a volume's first backup in the store; later ones keep it"}),
    'block-size': Flags.string({options: ['2', '16'], default: '2', helpValue: 'MIB', description: 'size of the blocks in MiB; with another size than the last backup everything is read'}),
    full: Flags.boolean({description: 'store everything again, which repairs what is damaged in the store'}),
    concurrency: Flags.integer({default: 5, min: 1, max: 64, helpValue: 'N', description: 'blocks that are moved at once'}),
    quiet: Flags.boolean({description: 'print nothing unless it fails'}),
  }

  async run(): Promise<MadeBackup & {removed: string[]}> {
    const {args, flags} = await this.parse(BackupCreate)
    const labels = parseLabels(flags.label ?? [], '--label')
    if ([...labels.values()].includes('')) throw new LonghornError('USAGE', '--label: a label needs a value')
    const made = await withStore(flags.dest, 'store', async (_store, {target}) => {
      await using engine = connectEngine(flags.engine, args.volume)
      using shown = await startTransferProgress(`backing up ${args.volume}`, flags.quiet)
      const result = await backUpVolume(engine, {
        volume: args.volume,
        target,
        snapshot: flags.snapshot,
        backup: flags.name,
        labels,
        compression: flags.compression,
        blockBytes: Number(flags['block-size']) * MIB,
        concurrency: flags.concurrency,
        full: flags.full,
        signal: this.signal,
        onProgress: shown.onProgress,
      })
      shown.done()
      return result
    })
    const removed = flags.retain === undefined ? [] : await this.#retain(flags.dest, args.volume, flags.retain, made.backup)
    if (!flags.quiet) {
      this.log(`${made.url} ${made.incremental ? 'incremental' : 'full'}, ${made.blocks} blocks, ${formatSize(made.newBytes)} stored${removed.length === 0 ? '' : `, removed ${removed.join(', ')}`}`)
    }
    return {...made, removed}
  }

  async #retain(dest: string, volume: string, retain: number, backup: string): Promise<string[]> {
    try {
      return await withStore(dest, 'store', async store => retainBackups(store, volume, retain, this.signal))
    } catch (error) {
      throw afterBackup(backup, 'older ones', error)
    }
  }
}
