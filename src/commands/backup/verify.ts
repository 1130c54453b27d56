import {Args, Flags} from '@oclif/core'
import {concurrencyFlag, startTransferProgress, withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'
import {formatTable} from '../../cli/table.js'
import {LonghornError} from '../../lib/errors.js'
import type {Finding, Verified} from '../../backup/verify.js'

export default class BackupVerify extends BaseCommand {
  static override summary = 'Read backups back and check them.'

  static override description = `Blocks are read, decompressed and compared with their checksums. '?volume=VOL' checks all backups of a volume, '?backup=NAME&volume=VOL' one. What several backups
share is read once. Exit code 15 when something is missing or damaged; a backup that is made again with everything (backup create --full) repairs what it has.`

  static override examples = ["<%= config.bin %> <%= command.id %> 'vfs:///mnt/backups?volume=vol1' --sample 5%"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'a volume in a store, or a backup: STORE?volume=VOL'})}

  static override flags = {
    sample: Flags.string({default: '100%', helpValue: 'PERCENT', description: 'how much to read, chosen at random'}),
    quiet: Flags.boolean({description: 'print nothing unless something is wrong'}),
    ...concurrencyFlag,
  }

  async run(): Promise<Verified> {
    const {args, flags} = await this.parse(BackupVerify)
    const {verifyBackups} = await import('../../backup/verify.js')
    const sample = parseSample(flags.sample)
    return await withStore(args.url, 'volume', async (store, {volume, backup}) => {
      using shown = await startTransferProgress('verifying', flags.quiet)
      const result = await verifyBackups(store, {volume, backup: backup || undefined, sample, concurrency: flags.concurrency, onProgress: shown.onProgress, signal: this.signal})
      shown.done()
      const {backups, unfinished, blocks, read, findings} = result
      if (findings.length > 0) {
        this.log(table(findings))
        process.exitCode = new LonghornError('CORRUPT', '').exitCode
      }
      if (!flags.quiet) {
        this.log(`${backups} backups, ${read} of ${blocks} blocks read, ${findings.length === 0 ? 'nothing wrong' : `${findings.length} problems`}${unfinished.length === 0 ? '' : `; not finished: ${unfinished.join(', ')}`}`)
      }
      return result
    })
  }
}

/** `5%` or `5` is a share of 0.05. */
function parseSample(text: string): number {
  const percent = /^\d{1,3}(\.\d{1,6})?%?$/.test(text) ? Number.parseFloat(text) : NaN
  if (percent > 0 && percent <= 100) return percent / 100
  throw new LonghornError('USAGE', `--sample "${text}": expected a percentage above 0 and up to 100, such as 5%`)
}

function table(findings: readonly Finding[]): string {
  return formatTable<Finding>(
    [
      {header: 'backup', value: row => row.backup},
      {header: 'offsets', value: row => `${row.offsets.slice(0, 3).join(' ')}${row.offsets.length > 3 ? ` and ${row.offsets.length - 3} more` : ''}`},
      {header: 'problem', value: row => row.problem},
    ],
    findings,
  )
}
