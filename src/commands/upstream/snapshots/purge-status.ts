import {listReplicas, withAgent, type ListedReplica} from '../../../cli/upstream/replicas.js'
import {inKeyOrder, UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {messageOf} from '../../../lib/errors.js'

export default class UpstreamSnapshotsPurgeStatus extends UpstreamCommand {
  static override summary = 'Show how far the purge is on each replica, as JSON.'

  static override examples = ['<%= config.bin %> snapshots purge-status']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamSnapshotsPurgeStatus)
    await using engine = this.engine(flags)
    const used = (await listReplicas(engine, this.signal)).filter(({mode}) => mode !== 'ERR')
    const statuses = await Promise.all(used.map(async replica => [replica.address, await this.#status(replica, flags['volume-name'])] as const))
    this.printJson(inKeyOrder(statuses))
    return {}
  }

  async #status(replica: ListedReplica, volumeName: string | undefined): Promise<object> {
    try {
      const {error, isPurging, progress, state} = await withAgent(replica, volumeName, agent => agent.snapshotPurgeStatus({}, {signal: this.signal}))
      return {error, isPurging, progress, state}
    } catch (error) {
      this.signal.throwIfAborted()
      return {error: `failed to get snapshot purge status of ${replica.address}: ${messageOf(error)}`, isPurging: false, progress: 0, state: ''}
    }
  }
}
