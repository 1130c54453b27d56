import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags, present} from '../../cli/engine-connection.js'
import {formatTable} from '../../cli/table.js'
import {ReplicaMode} from '../../protocol/proto/generated/controller.js'

interface ReplicaRow {
  readonly address: string
  readonly mode: string
}

export default class ReplicaLs extends BaseCommand {
  static override summary = 'List the replicas of a volume and whether each is in use.'

  static override description = `RW: reads and writes. WO: takes writes while it is being rebuilt. ERR: failed, and out of use.`

  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> vol1 --engine 10.0.0.5:9501 --json']

  static override args = {
    volume: Args.string({ignoreStdin: true, description: 'name of the volume; an engine of another volume is refused'}),
  }

  static override flags = {...engineFlags}

  async run(): Promise<{replicas: ReplicaRow[]}> {
    const {args, flags} = await this.parse(ReplicaLs)
    await using engine = connectEngine(flags.engine, args.volume)
    const {replicas} = await engine.replicaList({}, {signal: this.signal})
    const rows = replicas.map(({address, mode}) => ({
      address: present(address, "a replica's address").address,
      mode: nameOf(mode),
    }))
    this.log(
      formatTable<ReplicaRow>(
        [
          {header: 'address', value: row => row.address},
          {header: 'mode', value: row => row.mode},
        ],
        rows,
      ),
    )
    return {replicas: rows}
  }
}

function nameOf(mode: ReplicaMode): string {
  return Object.entries(ReplicaMode).find(([, value]) => value === mode)?.[0] ?? `unknown mode ${mode}`
}
