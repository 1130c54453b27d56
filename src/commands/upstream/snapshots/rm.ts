import {Args} from '@oclif/core'
import {connectReplica, listReplicas, refuseDuringRebuild, withAgent, type ListedReplica} from '../../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {isKind, LonghornError, messageOf} from '../../../lib/errors.js'

export default class UpstreamSnapshotsRm extends UpstreamCommand {
  static override summary = 'Mark snapshots as removed.'

  static override description = 'On every replica; all have to be RW. One that is not there is success. A purge gives the space back.'

  static override examples = ['<%= config.bin %> snapshots rm monday tuesday']

  static override strict = false

  static override args = {name: Args.string({ignoreStdin: true, description: 'name of a snapshot; may be repeated'})}

  async run(): Promise<object> {
    const {argv, flags} = await this.parse(UpstreamSnapshotsRm)
    const volumeName = flags['volume-name']
    await using engine = this.engine(flags)
    const failures: unknown[] = []
    for (const name of argv as string[]) {
      try {
        const replicas = await listReplicas(engine, this.signal)
        await refuseDuringRebuild(replicas, 'remove a snapshot', volumeName, this.signal)
        for (const replica of replicas) await this.#remove(replica, name, volumeName)
      } catch (error) {
        this.signal.throwIfAborted()
        failures.push(error)
        this.logToStderr(`${name} was not removed: ${messageOf(error)}`)
      }
    }
    if (failures.length > 0) throw failures.at(-1)
    return {}
  }

  async #remove(replica: ListedReplica, name: string, volumeName: string | undefined): Promise<void> {
    if (replica.mode !== 'RW') throw new LonghornError('CONFLICT', `${replica.address} is in mode ${replica.mode}: a snapshot is removed on replicas in mode RW only`)
    {
      await using rpc = connectReplica(replica.address, volumeName)
      await rpc.diskMarkAsRemoved({name}, {signal: this.signal})
    }
    // Nobody needs the checksum of what is removed; an agent that computes none, or not this one, has none to stop.
    await withAgent(replica, volumeName, agent => agent.snapshotHashCancel({snapshotName: name}, {signal: this.signal})).catch((error: unknown) => {
      if (!isKind(error, 'UNSUPPORTED') && !isKind(error, 'NOT_FOUND')) throw error
    })
  }
}
