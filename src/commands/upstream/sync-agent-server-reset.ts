import {listReplicas, refuseDuringRebuild, withAgent} from '../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'

export default class UpstreamSyncAgentServerReset extends UpstreamCommand {
  static override summary = 'Have the sync agents of a volume forget the backups and restores that they know of.'

  static override examples = ['<%= config.bin %> sync-agent-server-reset']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamSyncAgentServerReset)
    const volumeName = flags['volume-name']
    await using engine = this.engine(flags)
    const replicas = await listReplicas(engine, this.signal)
    await refuseDuringRebuild(replicas, 'reset the sync agents', volumeName, this.signal)
    for (const replica of replicas) await withAgent(replica, volumeName, agent => agent.reset({}, {signal: this.signal}))
    return {}
  }
}
