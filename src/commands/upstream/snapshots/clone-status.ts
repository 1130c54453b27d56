import {listReplicas, withAgent, type ListedReplica} from '../../../cli/upstream/replicas.js'
import {inKeyOrder, UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {messageOf} from '../../../lib/errors.js'

export default class UpstreamSnapshotsCloneStatus extends UpstreamCommand {
  static override summary = 'Show how far the copy of a snapshot of another volume into this one is, as JSON.'

  static override examples = ['<%= config.bin %> snapshots clone-status']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamSnapshotsCloneStatus)
    await using engine = this.engine(flags)
    const replicas = await listReplicas(engine, this.signal)
    const statuses = await Promise.all(replicas.map(async replica => [replica.address, await this.#status(replica, flags['volume-name'])] as const))
    this.printJson(inKeyOrder(statuses))
    return {}
  }

  async #status(replica: ListedReplica, volumeName: string | undefined): Promise<object> {
    try {
      const status = await withAgent(replica, volumeName, agent => agent.snapshotCloneStatus({}, {signal: this.signal}))
      const {isCloning, error, progress, state, fromReplicaAddress, snapshotName} = status
      return {isCloning, error, progress, state, fromReplicaAddress, snapshotName}
    } catch (error) {
      this.signal.throwIfAborted()
      const text = `failed to get snapshot clone status of ${replica.address}: ${messageOf(error)}`
      return {isCloning: false, error: text, progress: 0, state: '', fromReplicaAddress: '', snapshotName: ''}
    }
  }
}
