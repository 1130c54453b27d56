import {resolve} from 'node:path'
import {Args, Flags} from '@oclif/core'
import {BaseCommand} from '../../cli/base-command.js'
import {busyPollFlag, parseListen, sizeFlag} from '../../cli/flags.js'
import {checkReplicaFlags, replicaServerFlags} from '../../cli/upstream/server-flags.js'

export default class Replica extends BaseCommand {
  static override summary = 'Run a replica: one copy of a volume in a directory, served to an engine.'

  static override description = `Creates the replica with --size if DIRECTORY holds none, else serves the one that is there.
The control service listens on --listen, data is served on the port after it, long operations on the one after that; the ports that follow receive files. SIGTERM closes the replica cleanly.`

  static override examples = [
    '<%= config.bin %> <%= command.id %> /var/lib/longhorn/replicas/vol1-a --size 10g --listen 127.0.0.1:10000',
    '<%= config.bin %> <%= command.id %> /mnt/disk2/vol1-b --listen 0.0.0.0:10010',
  ]

  static override args = {
    directory: Args.string({required: true, ignoreStdin: true, description: 'the directory of the replica; created if its parent exists'}),
  }

  static override flags = {
    size: sizeFlag({description: 'size of the volume, e.g. 512m, 10g; needed to create a replica'}),
    listen: Flags.string({
      default: 'localhost:9502',
      env: 'LONGHORN_REPLICA_LISTEN',
      description: 'HOST:PORT of the control service; the data port is the next one',
    }),
    'sync-agent-port-count': Flags.integer({
      default: 10,
      min: 1,
      max: 1000,
      description: 'how many ports, from the third after the control port on, are for receiving files of other replicas',
    }),
    'volume-name': Flags.string({description: 'name of the volume; calls that mean another volume are refused'}),
    'replica-instance-name': Flags.string({description: 'name of this instance; calls that mean another one are refused'}),
    ...busyPollFlag,
    ...replicaServerFlags,
  }

  async run(): Promise<never> {
    const {args, flags} = await this.parse(Replica)
    const ignored = checkReplicaFlags(flags)
    const {becomeDaemon} = await import('../../cli/become-daemon.js')
    return becomeDaemon({
      role: 'replica',
      directory: resolve(args.directory),
      sizeBytes: flags.size,
      listen: parseListen(flags.listen, '--listen'),
      receiverPorts: flags['sync-agent-port-count'],
      volumeName: flags['volume-name'],
      instanceName: flags['replica-instance-name'],
      syncAgent: flags['sync-agent'],
      settings: {
        markOnUnmap: flags['unmap-mark-disk-chain-removed'],
        snapshotMaxCount: flags['snapshot-max-count'],
        snapshotMaxSizeBytes: flags['snapshot-max-size'] ?? 0,
      },
      ignored,
      busyPollUs: flags['busy-poll'],
      json: this.jsonEnabled(),
      debug: flags.debug,
    })
  }
}
