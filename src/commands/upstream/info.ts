import {UpstreamCommand} from '../../cli/upstream/upstream-command.js'
import {toSize} from '../../protocol/grpc/fields.js'

export default class UpstreamInfo extends UpstreamCommand {
  static override summary = 'Show a volume, as JSON.'

  static override examples = ['<%= config.bin %> info', '<%= config.bin %> --url http://10.0.0.5:9501 --volume-name vol1 info']

  async run(): Promise<object> {
    const {flags} = await this.parse(UpstreamInfo)
    await using engine = this.engine(flags)
    const volume = await engine.volumeGet({}, {signal: this.signal})
    this.printJson({
      name: volume.name,
      size: toSize(volume.size, 'Volume: size', 'PROTOCOL'),
      replicaCount: volume.replicaCount,
      endpoint: volume.endpoint,
      frontend: volume.frontend,
      frontendState: volume.frontendState,
      isExpanding: volume.isExpanding,
      lastExpansionError: volume.lastExpansionError,
      lastExpansionFailedAt: volume.lastExpansionFailedAt,
      unmapMarkSnapChainRemoved: volume.unmapMarkSnapChainRemoved,
      snapshotMaxCount: volume.snapshotMaxCount,
      // The capital letter is upstream's.
      SnapshotMaxSize: toSize(volume.snapshotMaxSize, 'Volume: snapshot_max_size', 'PROTOCOL'),
    })
    return {}
  }
}
