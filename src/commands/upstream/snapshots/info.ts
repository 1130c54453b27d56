import {askReplica, bareName, listReplicas} from '../../../cli/upstream/replicas.js'
import {inKeyOrder, UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {LonghornError} from '../../../lib/errors.js'
import type {DiskInfo, Replica} from '../../../protocol/proto/generated/replica.js'

export default class UpstreamSnapshotsInfo extends UpstreamCommand {
  static override summary = 'Show all snapshots of a volume and its head, as JSON.'

  static override description = 'As the replica in mode RW has them that has the most.'

  static override examples = ['<%= config.bin %> snapshots info']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamSnapshotsInfo)
    await using engine = this.engine(flags)
    const used = (await listReplicas(engine, this.signal)).filter(({mode}) => mode === 'RW')
    if (used.length === 0) throw new LonghornError('NO_DATA', 'the volume has no usable replica')
    const pictures = await Promise.all(used.map(async replica => layersOf(await askReplica(replica, flags['volume-name'], this.signal))))
    const fullest = pictures.reduce((best, picture) => (picture.length > best.length ? picture : best))
    this.printJson(inKeyOrder(fullest.map(disk => [bareName(disk.name), describe(disk)] as const)))
    return {}
  }
}

function layersOf({disks, backingFile}: Replica): DiskInfo[] {
  return [...disks].filter(([name]) => name !== backingFile).map(([name, disk]) => ({...disk, name}))
}

function describe(disk: DiskInfo): object {
  return {
    name: bareName(disk.name),
    parent: bareName(disk.parent),
    children: inKeyOrder([...disk.children.keys()].map(child => [bareName(child), true] as const)),
    removed: disk.removed,
    usercreated: disk.userCreated,
    created: disk.created,
    size: disk.size,
    labels: inKeyOrder(disk.labels),
  }
}
