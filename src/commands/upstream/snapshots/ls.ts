import {askReplica, bareName, listReplicas} from '../../../cli/upstream/replicas.js'
import {tabTable} from '../../../cli/upstream/tab-table.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamSnapshotsLs extends UpstreamCommand {
  static override summary = 'List the names of the snapshots that the volume stands on, the newest first.'

  static override description = 'Those that all replicas in mode RW have, without those that are marked as removed.'

  static override examples = ['<%= config.bin %> snapshots ls', '<%= config.bin %> --url http://10.0.0.5:9501 snapshot ls']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamSnapshotsLs)
    await using engine = this.engine(flags)
    const used = (await listReplicas(engine, this.signal)).filter(({mode}) => mode === 'RW')
    const chains = await Promise.all(used.map(async replica => (await askReplica(replica, flags['volume-name'], this.signal)).chain))
    // The head comes first in each.
    const [first = [], ...others] = chains
    const everywhere = first.slice(1).filter(file => others.every(chain => chain.includes(file)))
    this.log(tabTable([['ID'], ...everywhere.map(file => [bareName(file)])]))
    return {}
  }
}
