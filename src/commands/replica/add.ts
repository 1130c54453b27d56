import {setTimeout as sleep} from 'node:timers/promises'
import {Args, Flags} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags} from '../../cli/engine-connection.js'
import {sizeFlag, volumeFlag} from '../../cli/flags.js'
import {startProgress} from '../../cli/progress.js'
import {describeRebuild, formatDuration} from '../../cli/rebuild-progress.js'
import {LonghornError} from '../../lib/errors.js'
import {formatSize} from '../../lib/sizes.js'

const POLL_MS = 500
/** Joining may have to create files and to take a snapshot under load. */
const JOIN_TIMEOUT_MS = 180_000

interface Added {
  readonly address: string
  readonly mode: string
  readonly comparedBytes?: number
  readonly copiedBytes?: number
}

export default class ReplicaAdd extends BaseCommand {
  static override summary = 'Take a replica in, new or returning, and rebuild it while the volume is being used.'

  static override description = `The replica must be running (see "replica"). It takes part in all writes at once; what lies below is fetched from the other replicas,
compared by digest, and only then is it read from. One that was away gets what it missed. Whatever volume-less data its directory holds is overwritten;
a replica of another volume is refused. Waits for the end; Ctrl-C ends the waiting and not the rebuild.`

  static override examples = [
    '<%= config.bin %> <%= command.id %> tcp://127.0.0.1:10020',
    '<%= config.bin %> <%= command.id %> tcp://10.0.0.7:10000 --engine 10.0.0.5:9501 --limit 50m --no-wait',
  ]

  static override args = {
    address: Args.string({required: true, ignoreStdin: true, description: 'tcp://HOST:PORT of the replica'}),
  }

  static override flags = {
    ...engineFlags,
    ...volumeFlag,
    limit: sizeFlag({description: 'copy at most this much a second, e.g. 50m; without it a rebuild gives way to the use of the volume'}),
    wait: Flags.boolean({default: true, allowNo: true, description: 'wait until the rebuild has ended'}),
  }

  async run(): Promise<Added> {
    const {args, flags} = await this.parse(ReplicaAdd)
    await using engine = connectEngine(flags.engine, flags.volume)
    using progress = await startProgress(`taking in ${args.address}`)
    const added = await engine.replicaAdd({address: args.address, bytesPerSecond: BigInt(flags.limit ?? 0)}, {signal: this.signal, timeoutMs: JOIN_TIMEOUT_MS})
    const address = added.address?.address ?? args.address
    if (!flags.wait) {
      progress.succeed(`${address} takes part in writes and is being rebuilt`)
      return {address, mode: 'WO'}
    }
    for (;;) {
      const {rebuilds} = await engine.replicaRebuildList({}, {signal: this.signal})
      const rebuild = rebuilds.find(one => one.address === address)
      if (rebuild?.state === 'error') throw new LonghornError('IO', `replica ${address} could not be rebuilt: ${rebuild.error}`)
      if (rebuild === undefined || rebuild.state === 'complete') {
        const took = rebuild === undefined ? 'it was in use already' : `${formatSize(Number(rebuild.copied))} copied in ${formatDuration(Math.round(Number(rebuild.elapsedMs) / 1000))}`
        progress.succeed(`${address} is up to date: ${took}`)
        return {address, mode: 'RW', comparedBytes: Number(rebuild?.total ?? 0n), copiedBytes: Number(rebuild?.copied ?? 0n)}
      }
      progress.update(`rebuilding ${address}: ${describeRebuild(rebuild)}`)
      await sleep(POLL_MS, undefined, {signal: this.signal})
    }
  }
}
