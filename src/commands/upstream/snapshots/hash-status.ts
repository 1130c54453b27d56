import {Args} from '@oclif/core'
import {askReplica, listReplicas, withAgent, type ListedReplica} from '../../../cli/upstream/replicas.js'
import {inKeyOrder, UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {LonghornError, messageOf} from '../../../lib/errors.js'

export default class UpstreamSnapshotsHashStatus extends UpstreamCommand {
  static override summary = 'Show the checksum of a snapshot on each replica, or how far it is, as JSON.'

  static override examples = ['<%= config.bin %> snapshots hash-status monday']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamSnapshotsHashStatus)
    await using engine = this.engine(flags)
    const replicas = await listReplicas(engine, this.signal)
    const statuses = await Promise.all(replicas.map(async replica => [replica.address, await this.#status(replica, args.name, flags['volume-name'])] as const))
    this.printJson(inKeyOrder(statuses))
    return {}
  }

  async #status(replica: ListedReplica, snapshotName: string, volumeName: string | undefined): Promise<object> {
    try {
      if (replica.mode !== 'RW') throw new LonghornError('CONFLICT', `replica ${replica.address} is in ${replica.mode} mode`)
      if ((await askReplica(replica, volumeName, this.signal)).rebuilding) throw new LonghornError('BUSY', `replica ${replica.address} is rebuilding`)
      const {state, checksum, error, silentlyCorrupted} = await withAgent(replica, volumeName, agent => agent.snapshotHashStatus({snapshotName}, {signal: this.signal}))
      return {state, checksum, error, silentlyCorrupted}
    } catch (error) {
      this.signal.throwIfAborted()
      return {state: 'error', checksum: '', error: messageOf(error), silentlyCorrupted: false}
    }
  }
}
