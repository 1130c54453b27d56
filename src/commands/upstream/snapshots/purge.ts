import {Flags} from '@oclif/core'
import {listReplicas, onEachReplica, refuseDuringRebuild, withAgent} from '../../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {isKind, LonghornError} from '../../../lib/errors.js'

export default class UpstreamSnapshotsPurge extends UpstreamCommand {
  static override summary = 'Begin to give back the space of removed snapshots on every replica.'

  static override description = 'Does not wait for the end; see purge-status.'

  static override examples = ['<%= config.bin %> snapshots purge --skip-if-in-progress']

  static override flags = {'skip-if-in-progress': Flags.boolean({description: 'success when a replica is purging already'})}

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamSnapshotsPurge)
    const volumeName = flags['volume-name']
    const skip = flags['skip-if-in-progress']
    await using engine = this.engine(flags)
    const replicas = await listReplicas(engine, this.signal)
    await refuseDuringRebuild(replicas, 'purge snapshots', volumeName, this.signal)
    for (const replica of replicas) {
      const {isPurging} = await withAgent(replica, volumeName, agent => agent.snapshotPurgeStatus({}, {signal: this.signal}))
      if (!isPurging) continue
      if (skip) return {}
      throw new LonghornError('BUSY', `cannot purge snapshots because ${replica.address} is already purging snapshots`)
    }
    await onEachReplica(replicas, async replica => {
      await withAgent(replica, volumeName, agent => agent.snapshotPurge({}, {signal: this.signal})).catch((error: unknown) => {
        // Somebody else was quicker.
        if (!skip || !isKind(error, 'BUSY')) throw error
      })
    })
    return {}
  }
}
