import {listReplicas, withAgent, type ListedReplica} from '../../cli/upstream/replicas.js'
import {inKeyOrder, UpstreamCommand} from '../../cli/upstream/upstream-command.js'
import {messageOf} from '../../lib/errors.js'

export default class UpstreamReplicaRebuildStatus extends UpstreamCommand {
  static override summary = 'Show how far the rebuilds of replicas are, as JSON.'

  static override description = 'Only replicas in mode WO are in it. Short: rebuild-status.'

  static override examples = ['<%= config.bin %> replica-rebuild-status']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamReplicaRebuildStatus)
    await using engine = this.engine(flags)
    const rebuilding = (await listReplicas(engine, this.signal)).filter(({mode}) => mode === 'WO')
    const statuses = await Promise.all(rebuilding.map(async replica => [replica.address, await this.#status(replica, flags['volume-name'])] as const))
    this.printJson(inKeyOrder(statuses))
    return {}
  }

  async #status(replica: ListedReplica, volumeName: string | undefined): Promise<object> {
    try {
      const status = await withAgent(replica, volumeName, agent => agent.replicaRebuildStatus({}, {signal: this.signal}))
      const {error, isRebuilding, progress, state, fromReplicaAddress, fromReplicaAddressList} = status
      // Older programs name one source only.
      const sources = fromReplicaAddressList.length === 0 && fromReplicaAddress !== '' ? [fromReplicaAddress] : fromReplicaAddressList
      return {error, isRebuilding, progress, state, fromReplicaAddressList: sources.length === 0 ? null : sources}
    } catch (error) {
      this.signal.throwIfAborted()
      const text = `failed to get replica rebuild status of ${replica.address}: ${messageOf(error)}`
      return {error: text, isRebuilding: false, progress: 0, state: '', fromReplicaAddressList: null}
    }
  }
}
