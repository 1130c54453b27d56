import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {formatTable} from '../../cli/table.js'
import {restoreReport, type ReplicaReport, type RestoreReport} from '../../cli/volume-restore.js'
import {formatSize} from '../../lib/sizes.js'

export default class BackupRestoreStatus extends BaseCommand {
  static override summary = 'Show how far the restore of a backup into a volume is, or what came of the last one.'

  static override description = `Also after the engine was restarted: a volume whose restore was not finished says so, and no frontend starts until it is restored again or the restore is given up.`

  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> --engine 10.0.0.5:9501 --json']

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<RestoreReport> {
    const {flags} = await this.parse(BackupRestoreStatus)
    await using engine = connectEngine(flags.engine, flags.volume)
    const report = await restoreReport(engine, this.signal)
    this.log(`restore  ${report.state === '' ? 'none' : report.state}${report.backup === '' ? '' : ` ${report.backup}`}${report.state === 'in_progress' && report.incremental ? ' (incremental)' : ''}`)
    if (report.error !== '') this.log(`error    ${report.error}`)
    this.log(`holds    ${report.lastRestored === '' ? 'no backup' : report.lastRestored}`)
    this.log(`usable   ${report.usable ? 'yes' : 'no'}`)
    if (report.replicas.length > 0) this.log(table(report.replicas))
    return report
  }
}

function table(rows: readonly ReplicaReport[]): string {
  return formatTable<ReplicaReport>(
    [
      {header: 'address', value: row => row.address},
      {header: 'state', value: row => row.state},
      {header: 'done', value: row => `${row.progress} %`, align: 'right'},
      {header: 'blocks', value: row => `${row.blocks}/${row.totalBlocks}`, align: 'right'},
      {header: 'read', value: row => formatSize(row.read), align: 'right'},
      {header: 'error', value: row => row.error},
    ],
    rows,
  )
}
