import {Flags} from '@oclif/core'
import {BaseCommand} from '../cli/base-command.js'
import {versionInfo, type VersionInfo} from '../lib/version-info.js'

interface Versions {
  readonly clientVersion: VersionInfo
  readonly serverVersion: VersionInfo | null
}

/** Always prints JSON: upstream's manager runs this very command and parses what it says. */
export default class Version extends BaseCommand {
  static override summary = 'Print the versions of this program and of the interfaces that it speaks, as JSON.'

  static override examples = ['<%= config.bin %> <%= command.id %> --client-only']

  static override flags = {
    'client-only': Flags.boolean({description: 'do not ask a server for its version'}),
  }

  async run(): Promise<Versions> {
    await this.parse(Version)
    const versions = {clientVersion: versionInfo(), serverVersion: null}
    this.log(JSON.stringify(versions, undefined, '\t'))
    return versions
  }
}
