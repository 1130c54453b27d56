import {Args, Flags} from '@oclif/core'
import {sizeFlag} from '../../cli/flags.js'
import {addReplica, addRestoreReplica} from '../../cli/upstream/rebuild.js'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'

const DAY_S = 24 * 60 * 60

export default class UpstreamAddReplica extends UpstreamCommand {
  static override summary = 'Add a replica to a volume and wait until it holds all that the others do.'

  static override description = 'The client leads engine and replicas through the steps, as upstream does: interrupted, it leaves the replica in mode WO. Short: add.'

  static override examples = ['<%= config.bin %> add-replica tcp://10.0.0.7:10000 --size 10g --current-size 10g']

  static override args = {address: Args.string({required: true, ignoreStdin: true, description: 'tcp://HOST:PORT of the replica'})}

  static override flags = {
    size: sizeFlag({required: true, description: 'size of the volume, for one that has no replica yet'}),
    'current-size': sizeFlag({required: true, description: 'the size it has now, when an expansion was cut short; else the same'}),
    restore: Flags.boolean({description: 'the volume is being restored: the replica gets its data from there'}),
    'fast-sync': Flags.boolean({description: 'do not copy what has the same checksum and time'}),
    'sync-local': Flags.boolean({hidden: true, description: 'has no effect, as in upstream'}),
    'file-sync-http-client-timeout': Flags.integer({default: 5, min: 1, description: 'seconds that one request of the copy may take'}),
    'grpc-timeout-seconds': Flags.integer({default: 0, description: 'seconds that all of the copy may take; 0 for a day'}),
    'replica-instance-name': Flags.string({default: '', description: 'name of the replica instance; another one is refused'}),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamAddReplica)
    await using engine = this.engine(flags)
    const add = flags.restore ? addRestoreReplica : addReplica
    const request = {
      address: args.address,
      instanceName: flags['replica-instance-name'],
      volumeName: flags['volume-name'],
      sizeBytes: flags.size,
      currentSizeBytes: flags['current-size'],
      fastSync: flags['fast-sync'],
      fileTimeoutS: flags['file-sync-http-client-timeout'],
      totalTimeoutS: flags['grpc-timeout-seconds'] > 0 ? flags['grpc-timeout-seconds'] : DAY_S,
    }
    await add(engine, request, this.signal)
    return {}
  }
}
