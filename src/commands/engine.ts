import {Args, Flags} from '@oclif/core'
import {parseAddress} from '../lib/address.js'
import {BaseCommand} from '../cli/base-command.js'
import {busyPollFlag, parseListen, sizeFlag} from '../cli/flags.js'
import {checkEngineFlags, engineServerFlags} from '../cli/upstream/server-flags.js'

export default class Engine extends BaseCommand {
  static override aliases = ['controller']

  static override summary = 'Run the engine of a volume: writes go to all replicas, and the volume is served by a frontend.'

  static override description = `The replicas must be running (see "replica"). A replica that fails or does not answer in time is dropped and
I/O goes on with the others. SIGTERM shuts the frontend down, lets requests finish and closes the replicas cleanly.
SIGHUP ends the process at once and closes nothing: a block device stays for the next engine.

Frontends: nbd (an NBD server), iscsi (an iSCSI target), blockdev (a device node /dev/longhorn/VOLUME on this host),
socket (Longhorn's data protocol).`

  static override examples = [
    '<%= config.bin %> <%= command.id %> vol1 --size 10g --replica tcp://127.0.0.1:10000 --replica tcp://127.0.0.1:10010 --frontend nbd',
    '<%= config.bin %> <%= command.id %> vol1 --size 10g --replica 10.0.0.5:10000 --frontend nbd --frontend-listen 0.0.0.0:10809',
    '<%= config.bin %> <%= command.id %> vol1 --size 10g --replica 127.0.0.1:10000 --frontend blockdev',
    '<%= config.bin %> <%= command.id %> vol1 --size 10g --upgrade',
  ]

  static override args = {
    volume: Args.string({required: true, ignoreStdin: true, description: 'name of the volume'}),
  }

  static override flags = {
    size: sizeFlag({required: true, description: 'size of the volume, e.g. 512m, 10g; the replicas must have it'}),
    'current-size': sizeFlag({description: 'the size it has now, when an expansion was cut short and replicas differ'}),
    replica: Flags.string({multiple: true, description: 'tcp://HOST:PORT of a replica; may be repeated. Without any, it waits to be told (start-with-replicas)'}),
    listen: Flags.string({
      default: 'localhost:9501',
      env: 'LONGHORN_ENGINE_LISTEN',
      description: 'HOST:PORT of the control service',
    }),
    frontend: Flags.string({description: 'how to serve the volume: nbd, iscsi, blockdev or socket; none when left out'}),
    'frontend-listen': Flags.string({description: 'where the frontend listens: HOST:PORT or unix:/path; each frontend has its default'}),
    attach: Flags.string({
      default: 'auto',
      description: 'how --frontend blockdev makes its device: kernel-nbd, kernel-iscsi or fuse; auto takes the first that this host can do',
    }),
    'iscsi-chap-file': Flags.string({
      description: 'file with CHAP names and secrets as in iscsid.conf (node.session.auth.username = …), or a folder with a file per key',
    }),
    'iscsi-allow': Flags.string({multiple: true, description: 'name of an initiator that may log in; may be repeated; all when left out'}),
    'iscsi-state-dir': Flags.string({default: '/var/lib/longhorn/iscsi', description: 'where persistent reservations are kept over a restart'}),
    salvage: Flags.boolean({
      description: 'go on with the newest of the replicas that answer, though they lack something or were used apart from each other',
    }),
    upgrade: Flags.boolean({description: 'take the place of the engine of this volume that runs on this host, with its replicas and its frontend, while they are used'}),
    'upgrade-from': Flags.string({dependsOn: ['upgrade'], description: 'HOST:PORT of its control service; --listen when left out, then where the last engine of the volume listened'}),
    'write-through': Flags.boolean({description: 'every write survives a power cut by itself; slower'}),
    'min-replicas': Flags.integer({default: 1, min: 1, description: 'do not start with fewer usable replicas than this'}),
    'engine-replica-timeout': Flags.integer({
      default: 8,
      min: 1,
      max: 300,
      description: 'seconds after which a replica that does not answer is dropped; the last one gets twice as long, a flush that is slow everywhere 15 times',
    }),
    'engine-instance-name': Flags.string({description: 'name of this instance; calls that mean another one are refused'}),
    ...busyPollFlag,
    ...engineServerFlags,
  }

  async run(): Promise<never> {
    const {args, flags} = await this.parse(Engine)
    const replicas = flags.replica ?? []
    const ignored = checkEngineFlags(flags, args.volume, replicas.length)
    const frontendListen = flags['frontend-listen']
    const upgradeFrom = flags['upgrade-from']
    const {becomeDaemon} = await import('../cli/become-daemon.js')
    return becomeDaemon({
      role: 'engine',
      volume: args.volume,
      sizeBytes: flags.size,
      currentSizeBytes: flags['current-size'],
      replicas,
      leastReplicas: flags['min-replicas'],
      salvage: flags.salvage,
      writeThrough: flags['write-through'],
      replicaTimeoutMs: flags['engine-replica-timeout'] * 1000,
      listen: parseListen(flags.listen, '--listen'),
      upgrade: flags.upgrade ? {from: upgradeFrom === undefined ? undefined : parseListen(upgradeFrom, '--upgrade-from')} : undefined,
      frontend: flags.frontend === '' ? undefined : flags.frontend,
      frontendListen: frontendListen === undefined ? undefined : parseAddress(frontendListen),
      attach: flags.attach,
      iscsi: {
        chapFile: flags['iscsi-chap-file'],
        allowedInitiators: flags['iscsi-allow'],
        stateDirectory: flags['iscsi-state-dir'],
      },
      instanceName: flags['engine-instance-name'],
      settings: {
        unmapMarkSnapChainRemoved: flags['unmap-mark-snap-chain-removed'],
        snapshotMaxCount: flags['snapshot-max-count'],
        snapshotMaxSizeBytes: flags['snapshot-max-size'] ?? 0,
        rebuildSyncLimit: flags['rebuild-sync-concurrent-limit'],
      },
      ignored,
      busyPollUs: flags['busy-poll'],
      json: this.jsonEnabled(),
      debug: flags.debug,
    })
  }
}
