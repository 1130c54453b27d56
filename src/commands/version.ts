import {Flags} from '@oclif/core'
import {BaseCommand} from '../cli/base-command.js'
import {isKind} from '../lib/errors.js'
import {versionInfo, type VersionInfo} from '../lib/version-info.js'

interface Versions {
  readonly clientVersion: VersionInfo
  readonly serverVersion: VersionInfo | null
}

/** Always prints JSON: upstream's manager runs this very command and parses what it says. */
export default class Version extends BaseCommand {
  static override summary = 'Print the versions of this program and of the interfaces that it speaks, as JSON.'

  static override description = `With the version of an engine: the one that --url names, or the one at localhost:9501 if there is one.`

  static override examples = ['<%= config.bin %> <%= command.id %> --client-only', '<%= config.bin %> <%= command.id %> --url http://10.0.0.5:9501']

  static override flags = {
    'client-only': Flags.boolean({description: 'do not ask a server for its version'}),
    url: Flags.string({helpValue: 'http://HOST:PORT', description: 'the engine to ask; it is an error when it does not answer'}),
    'volume-name': Flags.string({hidden: true, description: 'name of the volume; an engine of another volume is refused'}),
    'engine-instance-name': Flags.string({hidden: true, description: 'name of the engine instance; another one is refused'}),
  }

  async run(): Promise<Versions> {
    const {flags} = await this.parse(Version)
    const {url, 'volume-name': volumeName, 'engine-instance-name': instanceName} = flags
    const serverVersion = flags['client-only'] ? null : await this.#ask(url, {volumeName, instanceName})
    const versions = {clientVersion: versionInfo(), serverVersion}
    this.log(JSON.stringify(versions, undefined, '\t'))
    return versions
  }

  /** In upstream's layout in either output. */
  protected override logJson(json: unknown): void {
    process.stdout.write(`${JSON.stringify(json, undefined, '\t')}\n`)
  }

  async #ask(url: string | undefined, identity: {volumeName: string | undefined; instanceName: string | undefined}): Promise<VersionInfo | null> {
    const {askEngineVersion} = await import('../cli/upstream/engine-version.js')
    try {
      return await askEngineVersion(url ?? 'http://localhost:9501', identity, this.signal)
    } catch (error) {
      if (url === undefined && isKind(error, 'UNREACHABLE')) return null
      throw error
    }
  }
}
