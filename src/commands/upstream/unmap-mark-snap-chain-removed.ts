import {Flags} from '@oclif/core'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'
import {LonghornError} from '../../lib/errors.js'

export default class UpstreamUnmapMarkSnapChainRemoved extends UpstreamCommand {
  static override summary = 'Say whether an unmap marks the snapshots under the head as removed.'

  static override description = `With it, what a file system gives up (fstrim, discard) can be given back although snapshots hold it: the snapshots that
the volume alone stands on are then lost with the next purge. Short: unmap-mark-snap.`

  static override examples = ['<%= config.bin %> unmap-mark-snap-chain-removed --enable']

  static override flags = {enable: Flags.boolean({description: 'from now on'}), disable: Flags.boolean({description: 'no longer'})}

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamUnmapMarkSnapChainRemoved)
    if (flags.enable === flags.disable) throw new LonghornError('USAGE', 'expected one of --enable and --disable')
    await using engine = this.engine(flags)
    await engine.volumeUnmapMarkSnapChainRemovedSet({enabled: flags.enable}, {signal: this.signal})
    return {}
  }
}
