import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {describeRebuild} from '../../cli/rebuild-progress.js'
import {formatTable} from '../../cli/table.js'

interface RebuildRow {
  readonly address: string
  readonly kind: string
  readonly state: string
  readonly progress: string
  readonly error: string
}

export default class ReplicaRebuilds extends BaseCommand {
  static override summary = 'Show the rebuilds of a volume: those under way, and the last one of each replica.'

  static override description = `rebuild: the replica was new, or had missed something. resync: everything stopped at once, and what was in flight is compared.`

  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> --engine 10.0.0.5:9501 --json']

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{rebuilds: RebuildRow[]}> {
    const {flags} = await this.parse(ReplicaRebuilds)
    await using engine = connectEngine(flags.engine, flags.volume)
    const {rebuilds} = await engine.replicaRebuildList({}, {signal: this.signal})
    const rows = rebuilds.map(rebuild => ({
      address: rebuild.address,
      kind: rebuild.resync ? 'resync' : 'rebuild',
      state: rebuild.state,
      progress: describeRebuild(rebuild),
      error: rebuild.error,
    }))
    this.log(
      formatTable<RebuildRow>(
        [
          {header: 'address', value: row => row.address},
          {header: 'kind', value: row => row.kind},
          {header: 'state', value: row => row.state},
          {header: 'progress', value: row => row.progress},
          {header: 'error', value: row => row.error},
        ],
        rows,
      ),
    )
    return {rebuilds: rows}
  }
}
