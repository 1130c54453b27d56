import {askReplica, listReplicas} from '../../cli/upstream/replicas.js'
import {tabTable} from '../../cli/upstream/tab-table.js'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'

export default class UpstreamLsReplica extends UpstreamCommand {
  static override summary = 'List the replicas of a volume, each with its layers, as a table.'

  static override description = 'The layers are those that are not marked as removed, the head first. Short: ls.'

  static override examples = ['<%= config.bin %> ls-replica', '<%= config.bin %> --url http://10.0.0.5:9501 ls']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamLsReplica)
    await using engine = this.engine(flags)
    const rows = [['ADDRESS', 'MODE', 'CHAIN']]
    for (const replica of await listReplicas(engine, this.signal)) {
      // One that does not answer is in the list all the same: the engine knows it.
      const chain = replica.mode === 'ERR' ? undefined : await askReplica(replica, flags['volume-name'], this.signal).catch(() => undefined)
      this.signal.throwIfAborted()
      rows.push([replica.address, replica.mode, chain === undefined ? '' : `[${chain.chain.join(' ')}]`])
    }
    this.log(tabTable(rows))
    return {}
  }
}
