import {Args, Flags} from '@oclif/core'
import {blockFormFor, storeCredentials} from '../../../cli/backup-target.js'
import {listReplicas, withAgent} from '../../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {LonghornError} from '../../../lib/errors.js'

const MIB = 1024 ** 2

export default class UpstreamBackupCreate extends UpstreamCommand {
  static override summary = 'Begin to back up a snapshot, as upstream does.'

  static override examples = ['<%= config.bin %> --url http://10.0.0.5:9501 backup create SNAPSHOT --dest vfs:///mnt/backups']

  static override args = {snapshot: Args.string({required: true, ignoreStdin: true, description: 'name of the snapshot'})}

  static override flags = {
    dest: Flags.string({required: true, description: 'the store'}),
    'backup-name': Flags.string({default: '', description: 'name of the backup'}),
    label: Flags.string({multiple: true, default: [], description: 'KEY=VALUE'}),
    'compression-method': Flags.string({default: 'lz4', description: 'lz4, gzip or none'}),
    'concurrent-limit': Flags.integer({default: 1, min: 1, description: 'blocks at once'}),
    'backup-block-size': Flags.integer({default: 2, min: 1, description: 'MiB'}),
    'backing-image-name': Flags.string({default: '', description: 'what the volume stands on'}),
    'backing-image-checksum': Flags.string({default: '', description: 'its checksum'}),
    'storage-class-name': Flags.string({default: '', description: 'kept with the volume'}),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamBackupCreate)
    const volumeName = flags['volume-name']
    await using engine = this.engine(flags)
    const replica = (await listReplicas(engine, this.signal)).find(({mode}) => mode === 'RW')
    if (replica === undefined) throw new LonghornError('NO_DATA', 'the volume has no usable replica')
    const {name} = await engine.volumeGet({}, {signal: this.signal})
    const request = {
      snapshotFileName: args.snapshot,
      backupTarget: flags.dest,
      volumeName: name,
      labels: flags.label,
      credential: storeCredentials(),
      backingImageName: flags['backing-image-name'],
      backingImageChecksum: flags['backing-image-checksum'],
      backupName: flags['backup-name'],
      compressionMethod: await blockFormFor(flags['compression-method']),
      concurrentLimit: flags['concurrent-limit'],
      storageClassName: flags['storage-class-name'],
      parameters: new Map([['backup-block-size', String(flags['backup-block-size'] * MIB)]]),
      exclusive: false,
    }
    const {backup, isIncremental} = await withAgent(replica, volumeName, agent => agent.backupCreate(request, {signal: this.signal, timeoutMs: 180_000}))
    this.printJson({backupID: backup, isIncremental, replicaAddress: replica.address})
    return {}
  }
}
