import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {findSnapshot, listSnapshots, withReplicas} from '../../cli/volume-snapshots.js'

export default class SnapshotRm extends BaseCommand {
  static override summary = 'Remove a snapshot: it can no longer be reverted to.'

  static override description = `It is marked on every replica. What later snapshots and the volume need of it stays; the rest of its space is given back by a purge.`

  static override examples = ['<%= config.bin %> <%= command.id %> before-upgrade']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<{name: string; removed: true}> {
    const {args, flags} = await this.parse(SnapshotRm)
    await using engine = connectEngine(flags.engine, flags.volume)
    const {name} = findSnapshot(await listSnapshots(engine, flags.volume, this.signal), args.name)
    await withReplicas(engine, flags.volume, this.signal, async replicas => {
      await Promise.all(replicas.map(({rpc}) => rpc.diskMarkAsRemoved({name}, {signal: this.signal})))
    })
    this.log(`${name} is removed`)
    return {name, removed: true}
  }
}
