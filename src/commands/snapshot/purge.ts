import {setTimeout as sleep} from 'node:timers/promises'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {volumeFlag} from '../../cli/flags.js'
import {startProgress} from '../../cli/progress.js'
import {connectSyncAgent, withReplicas} from '../../cli/volume-snapshots.js'
import {isKind, LonghornError} from '../../lib/errors.js'

const POLL_MS = 500
/** A rebuild that has just ended lets go of the layers soon. */
const BUSY_MS = 10_000

interface Purged {
  readonly replicas: readonly {readonly address: string; readonly state: string; readonly error: string}[]
}

export default class SnapshotPurge extends BaseCommand {
  static override summary = 'Give back the space of removed snapshots.'

  static override description = `Each replica does it by itself, while the volume is being used; this waits for all of them. Ctrl-C ends the waiting and
not the purge. Snapshots that the system took for itself are removed as well.`

  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> --engine 10.0.0.5:9501 --json']

  static override flags = {...engineFlags, ...volumeFlag}

  async run(): Promise<Purged> {
    const {flags} = await this.parse(SnapshotPurge)
    await using engine = connectEngine(flags.engine, flags.volume)
    return withReplicas(engine, flags.volume, this.signal, async replicas => {
      const agents = replicas.map(({address}) => ({address, rpc: connectSyncAgent(address, flags.volume)}))
      try {
        for (const {rpc} of agents) await this.#begin(rpc)
        return await this.#wait(agents)
      } finally {
        for (const {rpc} of agents) rpc.destroy()
      }
    })
  }

  /** A purge that somebody else has asked for will do. Throws BUSY when the layers are needed for something else, and still are after a while. */
  async #begin(rpc: ReturnType<typeof connectSyncAgent>): Promise<void> {
    for (const deadline = performance.now() + BUSY_MS; ; ) {
      try {
        await rpc.snapshotPurge({}, {signal: this.signal})
        return
      } catch (error) {
        if (!isKind(error, 'BUSY')) throw error
        if ((await rpc.snapshotPurgeStatus({}, {signal: this.signal})).isPurging) return
        if (performance.now() > deadline) throw error
        await sleep(POLL_MS, undefined, {signal: this.signal})
      }
    }
  }

  async #wait(agents: readonly {address: string; rpc: ReturnType<typeof connectSyncAgent>}[]): Promise<Purged> {
    using progress = await startProgress('purging')
    for (;;) {
      const states = await Promise.all(agents.map(async ({address, rpc}) => ({address, ...(await rpc.snapshotPurgeStatus({}, {signal: this.signal}))})))
      if (states.some(({isPurging}) => isPurging)) {
        progress.update(`purging: ${Math.min(...states.map(one => one.progress))} %`)
        await sleep(POLL_MS, undefined, {signal: this.signal})
        continue
      }
      const failed = states.filter(({error}) => error !== '')
      if (failed.length > 0) throw new LonghornError('IO', failed.map(({address, error}) => `replica ${address}: ${error}`).join('; '))
      progress.succeed('purged')
      return {replicas: states.map(({address, state, error}) => ({address, state, error}))}
    }
  }
}
