import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {findSnapshot, listSnapshots, type Snapshot} from '../../cli/volume-snapshots.js'
import {formatSize} from '../../lib/sizes.js'

export default class SnapshotInfo extends BaseCommand {
  static override summary = 'Show one snapshot of a volume.'

  static override examples = ['<%= config.bin %> <%= command.id %> before-upgrade']

  static override args = {name: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<Snapshot> {
    const {args, flags} = await this.parse(SnapshotInfo)
    await using engine = connectEngine(flags.engine, flags.volume)
    const snapshot = findSnapshot(await listSnapshots(engine, flags.volume, this.signal), args.name)
    this.log(`name      ${snapshot.name}`)
    this.log(`created   ${snapshot.created} by ${snapshot.userCreated ? 'a user' : 'the system'}`)
    this.log(`size      ${formatSize(snapshot.size)} (${snapshot.size} bytes)`)
    this.log(`parent    ${snapshot.parent === '' ? 'none' : snapshot.parent}`)
    this.log(`children  ${snapshot.children.length === 0 ? 'none' : snapshot.children.join(', ')}`)
    if (snapshot.removed) this.log('removed   yes; its space is given back by a purge')
    for (const [key, value] of Object.entries(snapshot.labels)) this.log(`label     ${key}=${value}`)
    if (snapshot.missingOn.length > 0) this.log(`missing   on ${snapshot.missingOn.join(', ')}`)
    return snapshot
  }
}
