import {setTimeout as sleep} from 'node:timers/promises'
import {Args} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {connectEngine, engineFlags, type EngineClient} from '../../cli/engine-connection.js'
import {startProgress} from '../../cli/progress.js'
import {formatTable} from '../../cli/table.js'
import {isKind, LonghornError} from '../../lib/errors.js'
import type {VolumeScrubStatusResponse} from '../../protocol/proto/generated/controller.js'

const POLL_MS = 500
/** Something was found that is not healed. */
const EXIT_NOT_HEALED = 1

interface Row {
  readonly snapshot: string
  readonly offset: number
  readonly length: number
  readonly replica: string
  readonly healed: boolean
  readonly reason: string
}

interface Scrubbed {
  readonly snapshots: number
  readonly found: number
  readonly healed: number
  readonly findings: readonly Row[]
}

export default class ReplicaScrub extends BaseCommand {
  static override summary = 'Compare the snapshots of the replicas, and heal what differs.'

  static override description = `The volume is used meanwhile. What is written now is not compared: take a snapshot first to have it looked at. Of three replicas the majority is
right; of two the one that can be read, or whose recorded checksum (snapshot hash) still holds; otherwise it is reported, and nothing is changed.
Exit code 1 when something was found that is not healed. Ctrl-C ends the waiting and not the scrub.`

  static override examples = ['<%= config.bin %> <%= command.id %>', '<%= config.bin %> <%= command.id %> vol1 --engine 10.0.0.5:9501 --json']

  static override args = {
    volume: Args.string({ignoreStdin: true, description: 'name of the volume; an engine of another volume is refused'}),
  }

  static override flags = {...engineFlags}

  async run(): Promise<Scrubbed> {
    const {args, flags} = await this.parse(ReplicaScrub)
    await using engine = connectEngine(flags.engine, args.volume)
    await engine.volumeScrub({}, {signal: this.signal}).catch(ignoreRunning)
    const {layers, found, healed, findings} = await this.#wait(engine)
    const rows = findings.map(({layer, offset, length, ...rest}) => ({...rest, snapshot: layer.replace(/^volume-snap-(.*)\.img$/, '$1'), offset: Number(offset), length: Number(length)}))
    if (rows.length > 0) this.log(table(rows))
    const more = Number(found) - rows.length
    this.log(`${layers} snapshots compared, ${found === 0n ? 'nothing differs' : `${found} ranges differed, ${healed} of them healed${more > 0 ? `; ${more} more than are listed` : ''}`}`)
    if (healed < found) process.exitCode = EXIT_NOT_HEALED
    return {snapshots: Number(layers), found: Number(found), healed: Number(healed), findings: rows}
  }

  async #wait(engine: EngineClient): Promise<VolumeScrubStatusResponse> {
    using progress = await startProgress('scrubbing')
    for (;;) {
      const status = await engine.volumeScrubStatus({}, {signal: this.signal})
      if (status.state === 'error') throw new LonghornError('IO', `the scrub ended early: ${status.error}`)
      if (status.state === 'complete') {
        progress.succeed('scrubbed')
        return status
      }
      progress.update(`scrubbing: ${status.progress} %`)
      await sleep(POLL_MS, undefined, {signal: this.signal})
    }
  }
}

function table(rows: readonly Row[]): string {
  return formatTable<Row>(
    [
      {header: 'snapshot', value: row => row.snapshot},
      {header: 'offset', value: row => row.offset, align: 'right'},
      {header: 'length', value: row => row.length, align: 'right'},
      {header: 'replica', value: row => row.replica},
      {header: 'healed', value: row => (row.healed ? 'yes' : 'no')},
      {header: 'reason', value: row => row.reason},
    ],
    rows,
  )
}

/** Somebody else has asked for it: then this waits for that. */
function ignoreRunning(error: unknown): void {
  if (!isKind(error, 'BUSY') || !error.message.includes('already being scrubbed')) throw error
}
