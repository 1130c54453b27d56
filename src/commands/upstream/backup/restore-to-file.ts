import {Args, Flags} from '@oclif/core'
import {startTransferProgress} from '../../../cli/backup-target.js'
import {StoreCommand} from '../../../cli/upstream/store-command.js'
import {LonghornError} from '../../../lib/errors.js'

export default class UpstreamBackupRestoreToFile extends StoreCommand {
  static override summary = 'Restore a backup to an image, as upstream does.'

  static override description = 'What is there under that name is replaced when the image is complete. A backup that is not complete is refused. For a raw image see also backup restore --to-file.'

  static override examples = ["<%= config.bin %> backup restore-to-file --output-file vol.qcow2 'vfs:///mnt/backups?backup=NAME&volume=VOL'"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'URL of the backup'})}

  static override flags = {
    'output-file': Flags.string({helpValue: 'FILE', description: 'the image; volume.qcow2 or volume.raw when left out'}),
    'output-format': Flags.string({default: 'qcow2', options: ['qcow2', 'raw'], description: 'qcow2 needs qemu-img'}),
    'concurrent-limit': Flags.integer({default: 5, min: 1, max: 64, description: 'blocks at once'}),
    'backing-file': Flags.string({description: 'refused: an image that the volume was based on'}),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamBackupRestoreToFile)
    if (flags['backing-file']) throw new LonghornError('UNSUPPORTED', `--backing-file ${flags['backing-file']}: volumes that are based on an image are not supported`)
    const format = flags['output-format']
    const file = flags['output-file'] ?? `volume.${format}`
    const [{restoreToFile}, {checkConverter, makeQcow2}] = await Promise.all([import('../../../backup/restore-file.js'), import('../../../cli/upstream/qcow2.js')])
    if (format === 'qcow2') await checkConverter()
    await this.store(args.url, 'backup', async (store, {volume, backup}) => {
      using shown = await startTransferProgress(`restoring ${backup}`, false)
      const restore = async (to: string): Promise<void> => {
        await restoreToFile(store, to, {volume, backup, concurrency: flags['concurrent-limit'], force: true, onProgress: shown.onProgress, signal: this.signal})
      }
      await (format === 'raw' ? restore(file) : makeQcow2(file, restore, this.signal))
      shown.done()
    })
    return {}
  }
}
