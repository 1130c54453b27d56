import {Flags} from '@oclif/core'
import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'

export default class UpstreamJournal extends UpstreamCommand {
  static override summary = 'Have an engine write to its log which requests it waits for.'

  static override examples = ['<%= config.bin %> journal --limit 20']

  static override flags = {limit: Flags.integer({default: 0, min: 0, description: 'at most this many, the oldest first; 0 for all'})}

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamJournal)
    await using engine = this.engine(flags)
    await engine.journalList({limit: BigInt(flags.limit)}, {signal: this.signal})
    return {}
  }
}
