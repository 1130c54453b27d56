import {Flags} from '@oclif/core'
import {hostOf, listReplicas, onEachReplica, withAgent} from '../../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {LonghornError} from '../../../lib/errors.js'

const DAY_S = 24 * 60 * 60

export default class UpstreamSnapshotsClone extends UpstreamCommand {
  static override summary = 'Copy a snapshot of another volume into this one.'

  static override description = 'From a replica of the other volume to every replica of this one; all of these have to be RW. Waits for the end.'

  static override examples = ['<%= config.bin %> snapshots clone --snapshot-name monday --from-controller-address tcp://10.0.0.7:9501']

  static override flags = {
    'snapshot-name': Flags.string({required: true, description: 'name of the snapshot in the other volume'}),
    'from-controller-address': Flags.string({required: true, helpValue: 'HOST:PORT', description: "address of the other volume's engine"}),
    'from-volume-name': Flags.string({description: 'name of the other volume; another one is refused'}),
    'from-controller-instance-name': Flags.string({description: "instance name of the other volume's engine; another one is refused"}),
    'export-backing-image-if-exist': Flags.boolean({description: 'copy what comes from a backing image as well'}),
    'file-sync-http-client-timeout': Flags.integer({default: 5, min: 1, description: 'seconds that one request of the copy may take'}),
    'grpc-timeout-seconds': Flags.integer({default: 0, description: 'seconds that all of it may take; 0 for a day'}),
  }

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamSnapshotsClone)
    const fromVolumeName = flags['from-volume-name']
    await using from = this.engine({
      url: flags['from-controller-address'],
      'volume-name': fromVolumeName,
      'engine-instance-name': flags['from-controller-instance-name'],
    })
    const source = (await listReplicas(from, this.signal)).find(({mode}) => mode === 'RW')
    if (source === undefined) throw new LonghornError('NO_DATA', 'the volume to copy from has no replica in mode RW')
    await using engine = this.engine(flags)
    const replicas = await listReplicas(engine, this.signal)
    const unfit = replicas.find(({mode}) => mode !== 'RW')
    if (unfit !== undefined) throw new LonghornError('CONFLICT', `replica ${unfit.address} is in mode ${unfit.mode}; all have to be RW for a clone`)
    const request = {
      fromAddress: source.address,
      snapshotFileName: flags['snapshot-name'],
      exportBackingImageIfExist: flags['export-backing-image-if-exist'],
      fileSyncHttpClientTimeout: flags['file-sync-http-client-timeout'],
      fromVolumeName: fromVolumeName ?? '',
    }
    const seconds = flags['grpc-timeout-seconds'] > 0 ? flags['grpc-timeout-seconds'] : DAY_S
    await onEachReplica(replicas, async replica => {
      const toHost = hostOf(replica.address)
      await withAgent(replica, flags['volume-name'], agent => agent.snapshotClone({...request, toHost}, {signal: this.signal, timeoutMs: seconds * 1000}))
    })
    return {}
  }
}
