import {listReplicas, withAgent, type ListedReplica} from '../../../cli/upstream/replicas.js'
import {goCompactJson, inKeyOrder, UpstreamCommand} from '../../../cli/upstream/upstream-command.js'
import {messageOf} from '../../../lib/errors.js'

export default class UpstreamBackupRestoreStatus extends UpstreamCommand {
  static override summary = 'Show how far the restore of a backup is on each replica, as upstream does.'

  static override examples = ['<%= config.bin %> --url http://10.0.0.5:9501 backup restore-status']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamBackupRestoreStatus)
    await using engine = this.engine(flags)
    const used = (await listReplicas(engine, this.signal)).filter(({mode}) => mode !== 'ERR')
    const statuses = await Promise.all(used.map(async replica => [replica.address, await this.#status(replica, flags['volume-name'])] as const))
    this.log(goCompactJson(inKeyOrder(statuses)))
    return {}
  }

  async #status(replica: ListedReplica, volumeName: string | undefined): Promise<object> {
    try {
      const status = await withAgent(replica, volumeName, agent => agent.restoreStatus({}, {signal: this.signal}))
      const {isRestoring, progress, error, destFileName, state, backupUrl, lastRestored, currentRestoringBackup} = status
      return {
        isRestoring,
        ...(progress === 0 ? {} : {progress}),
        ...(error === '' ? {} : {error}),
        ...(destFileName === '' ? {} : {filename: destFileName}),
        state,
        backupURL: backupUrl,
        lastRestored,
        currentRestoringBackup,
      }
    } catch (error) {
      this.signal.throwIfAborted()
      return {isRestoring: false, error: `Failed to get restoring status on ${replica.address}: ${messageOf(error)}`, state: '', backupURL: '', lastRestored: '', currentRestoringBackup: ''}
    }
  }
}
