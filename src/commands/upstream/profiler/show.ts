import {Flags} from '@oclif/core'
import {refuseProfiler} from '../../../cli/upstream/profiler.js'
import {UpstreamCommand} from '../../../cli/upstream/upstream-command.js'

export default class UpstreamProfilerShow extends UpstreamCommand {
  static override summary = 'Refused: the profiler of upstream is part of its Go runtime.'

  static override flags = {port: Flags.string({hidden: true})}

  async run(): Promise<never> {
    await this.parse(UpstreamProfilerShow)
    return refuseProfiler()
  }
}
