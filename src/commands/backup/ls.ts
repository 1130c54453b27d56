import {Args} from '@oclif/core'
import {withStore} from '../../cli/backup-target.js'
import {BaseCommand} from '../../cli/base-command.js'
import {formatTable} from '../../cli/table.js'
import {isKind, LonghornError, messageOf} from '../../lib/errors.js'
import {formatSize} from '../../lib/sizes.js'

interface Row {
  readonly volume: string
  readonly backup: string
  /** '' while it is not finished. */
  readonly created: string
  /** Blocks times their size. */
  readonly size: number
  readonly newBytes: number
  readonly snapshot: string
  readonly labels: Readonly<Record<string, string>>
  /** Id of the key that it is encrypted with, '' when it is not. */
  readonly key: string
  /** Why its record cannot be read; '' when it can. */
  readonly problem: string
}

export default class BackupLs extends BaseCommand {
  static override summary = 'List the backups in a store.'

  static override description = `Of all volumes, or of one with '?volume=VOL' in the URL. A backup without a time runs, or has failed. One whose record is damaged is listed as such, with exit code 15.`

  static override examples = ['<%= config.bin %> <%= command.id %> vfs:///mnt/backups', "<%= config.bin %> <%= command.id %> 's3://bucket@eu-west-1/longhorn?volume=vol1' --json"]

  static override args = {url: Args.string({required: true, ignoreStdin: true, description: 'the store, or a volume in it'})}

  async run(): Promise<{backups: Row[]}> {
    const {args} = await this.parse(BackupLs)
    const {listBackups, listVolumes, findBackup} = await import('../../backup/catalog.js')
    const {keyIdOf} = await import('../../backup/format/block-form.js')
    return await withStore(args.url, 'store', async (store, {volume}) => {
      const backups: Row[] = []
      for (const name of volume === '' ? await listVolumes(store, this.signal) : [volume]) {
        for (const backup of await listBackups(store, name, this.signal)) {
          const record = await findBackup(store, name, backup, this.signal).catch(damaged)
          if (record === undefined) continue
          if (typeof record === 'string') {
            backups.push({volume: name, backup, created: '', size: 0, newBytes: 0, snapshot: '', labels: {}, key: '', problem: record})
            continue
          }
          const {createdTime: created, sizeBytes: size, newBytes, snapshotName: snapshot, labels} = record
          backups.push({volume: name, backup, created, size, newBytes, snapshot, labels: labels ?? {}, key: keyIdOf(record.compressionMethod) ?? '', problem: ''})
        }
      }
      backups.sort((a, b) => (orderOf(a) < orderOf(b) ? -1 : 1))
      this.log(table(backups))
      const problems = backups.filter(({problem}) => problem !== '')
      for (const {problem} of problems) this.log(problem)
      if (problems.length > 0) process.exitCode = new LonghornError('CORRUPT', '').exitCode
      return {backups}
    })
  }
}

/** By volume, then by time; what has none comes last. */
function orderOf({volume, created, backup}: Row): string {
  return [volume, created || '~', backup].join(' ')
}

/** One damaged record is no reason not to list the others. */
function damaged(error: unknown): string {
  if (isKind(error, 'CORRUPT')) return messageOf(error)
  throw error
}

function table(rows: readonly Row[]): string {
  return formatTable<Row>(
    [
      {header: 'volume', value: row => row.volume},
      {header: 'backup', value: row => row.backup},
      {header: 'created', value: row => row.created || (row.problem === '' ? 'unfinished' : 'damaged')},
      {header: 'size', value: row => formatSize(row.size), align: 'right'},
      {header: 'new', value: row => formatSize(row.newBytes), align: 'right'},
      {header: 'snapshot', value: row => row.snapshot},
      {header: 'labels', value: row => Object.entries(row.labels).map(([key, value]) => `${key}=${value}`).join(',')},
    ],
    rows,
  )
}
