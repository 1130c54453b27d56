import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {formatTable} from '../../cli/table.js'
import {listSnapshots, treeMarks, type Snapshot} from '../../cli/volume-snapshots.js'
import {formatSize} from '../../lib/sizes.js'

export default class SnapshotLs extends BaseCommand {
  static override summary = 'List the snapshots of a volume, each below what was written after it.'

  static override description = `volume-head is what is written now. A fork shows where the volume was reverted. SIZE is what a snapshot takes on disk:
what was written since the one before. A removed snapshot is there until it is purged.`

  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> --engine 10.0.0.5:9501 --json']

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{snapshots: Snapshot[]}> {
    const {flags} = await this.parse(SnapshotLs)
    await using engine = connectEngine(flags.engine, flags.volume)
    const snapshots = await listSnapshots(engine, flags.volume, this.signal)
    const marks = treeMarks(snapshots)
    this.log(
      formatTable<Snapshot>(
        [
          {header: 'snapshot', value: row => `${marks.get(row.name) ?? ''}${row.name}`},
          {header: 'created', value: row => row.created},
          {header: 'size', align: 'right', value: row => formatSize(row.size)},
          {header: 'by', value: row => (row.userCreated ? 'user' : 'system')},
          {header: 'removed', value: row => (row.removed ? 'yes' : undefined)},
          {header: 'labels', value: row => Object.entries(row.labels).map(([key, value]) => `${key}=${value}`).join(' ')},
        ],
        snapshots,
      ),
    )
    for (const {name, missingOn} of snapshots) {
      if (missingOn.length > 0) this.logToStderr(`${name} is missing on ${missingOn.join(', ')}`)
    }
    return {snapshots}
  }
}
