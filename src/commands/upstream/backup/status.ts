import {Args, Flags} from '@oclif/core'
import {listReplicas, withAgent} from '../../../cli/upstream/replicas.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {LonghornError, messageOf} from '../../../lib/errors.js'

export default class UpstreamBackupStatus extends UpstreamCommand {
  static override summary = 'Show how far a backup is, as upstream does.'

  static override examples = ['<%= config.bin %> --url http://10.0.0.5:9501 backup status ID --replica tcp://10.0.0.6:9502']

  static override args = {id: Args.string({required: true, ignoreStdin: true, description: 'what create answered'})}

  static override flags = {
    replica: Flags.string({description: 'the replica that makes it; the first one in use when left out'}),
    'replica-instance-name': Flags.string({description: 'ignored'}),
  }

  async run(): Promise<object> {
    const {args, flags} = await this.parse(UpstreamBackupStatus)
    await using engine = this.engine(flags)
    const replicas = (await listReplicas(engine, this.signal)).filter(({mode}) => mode === 'RW')
    const replica = flags.replica === undefined ? replicas[0] : replicas.find(({address}) => address.replace(/^tcp:\/\//, '') === flags.replica!.replace(/^tcp:\/\//, ''))
    if (replica === undefined) throw new LonghornError('NOT_FOUND', `cannot find replica ${flags.replica ?? ''} of the volume in mode RW`)
    try {
      const {progress, backupUrl, error, snapshotName, state} = await withAgent(replica, flags['volume-name'], agent => agent.backupStatus({backup: args.id}, {signal: this.signal}))
      this.printJson({progress, ...(backupUrl === '' ? {} : {backupURL: backupUrl}), ...(error === '' ? {} : {error}), snapshotName, state, replicaAddress: replica.address})
    } catch (error) {
      // An unknown backup is an answer to upstream, with exit code 0.
      this.printJson({progress: 0, error: `Failed to get backup status on ${replica.address}: ${messageOf(error)}`, snapshotName: '', state: '', replicaAddress: ''})
    }
    return {}
  }
}
