import type {TcpAddress} from '../lib/address.js'
import {Cleanup} from '../lib/cleanup.js'
import {isAddressInUse, LonghornError} from '../lib/errors.js'
import type {Log} from '../lib/log.js'
import {Health} from '../protocol/grpc/health.js'
import {RpcServer} from '../protocol/grpc/server.js'
import {BackupJobs} from './backup/backup-jobs.js'
import {RestoreJobs} from './backup/restore-jobs.js'
import {DataServer} from './data-server.js'
import {Replica} from './replica.js'
import type {ReplicaSettings} from './replica-settings.js'
import {replicaService} from './replica-service.js'
import {RebuildTarget} from './ssync/rebuild-target.js'
import {ReceiverPorts} from './ssync/receiver-ports.js'
import {SyncAgent} from './ssync/sync-agent.js'
import {syncAgentService} from './sync-agent-service.js'

export interface ReplicaServerOptions {
  readonly directory: string
  /** Create a replica of this size where there is none; undefined: whatever is there. */
  readonly sizeBytes?: number | undefined
  /**
   * The control service's address; data is served on the port after it, and what takes long is asked for on the one after that.
   * Port 0: any three free ones that follow each other.
   */
  readonly listen: TcpAddress
  /** How many ports from the third after the control service's on are for receiving files, one for each at a time; 10 by default. */
  readonly receiverPorts?: number | undefined
  readonly volumeName?: string | undefined
  readonly instanceName?: string | undefined
  /** Serve the sync agent, without which there is no purge and no rebuild. True by default. */
  readonly syncAgent?: boolean | undefined
  /** Until an engine says something else. */
  readonly settings?: Partial<ReplicaSettings> | undefined
  readonly log: Log
}

export interface ReplicaServer extends AsyncDisposable {
  /** Where the control service really listens. */
  readonly address: TcpAddress
  /** Closes the replica, which leaves it clean, and everything else. Safe twice. */
  close(): Promise<void>
}

/** A free port is looked for this many times; its neighbour may be taken. */
const PORT_ATTEMPTS = 20

/** One replica process: the data server on port P+1, the sync agent on P+2, then the control service on P, so that who finds it finds the others. */
export async function startReplicaServer(options: ReplicaServerOptions): Promise<ReplicaServer> {
  const {listen} = options
  const most = 65533 - receiverPorts(options)
  if (listen.port > most) throw new LonghornError('USAGE', `--listen ${listen.port}: the ${65535 - most} ports after it are needed as well, so at most ${most}`)
  if (listen.port !== 0) return startOn(options, listen)
  for (let attempt = 1; ; attempt++) {
    const probe = await DataServer.start(listen, options.log)
    const {port} = probe.address as TcpAddress
    await probe.close()
    try {
      return await startOn(options, {...listen, port: Math.min(port, most)})
    } catch (error) {
      // Other conflicts, such as a replica of another size, do not go away with another port.
      if (!isAddressInUse(error) || attempt === PORT_ATTEMPTS) throw error
    }
  }
}

function receiverPorts({receiverPorts: count = 10}: ReplicaServerOptions): number {
  return count
}

async function startOn(options: ReplicaServerOptions, listen: TcpAddress): Promise<ReplicaServer> {
  const {log} = options
  await using undo = new Cleanup()
  const data = undo.add(await DataServer.start({...listen, port: listen.port + 1}, log))
  const replica = await Replica.take(options.directory, options.sizeBytes, data, log)
  undo.defer(() => replica.giveBack())
  Object.assign(replica.settings, options.settings)
  const identity = {volumeName: options.volumeName, instanceName: options.instanceName, role: 'replica' as const}
  const target = new RebuildTarget(replica, log)
  const ports = new ReceiverPorts(listen.host, listen.port + 3, receiverPorts(options))
  const agent = undo.add(new SyncAgent({replica, target, ports, volumeName: options.volumeName, log}))
  const backups = undo.add(new BackupJobs(replica, log))
  const restores = undo.add(new RestoreJobs(replica, log))
  if (options.syncAgent !== false) {
    undo.add(await RpcServer.start({listen: {...listen, port: listen.port + 2}, services: [syncAgentService(replica, agent, backups, restores)], identity, log}))
  }
  const health = new Health()
  undo.add(await RpcServer.start({listen, services: [replicaService(replica, target), health.service], identity, log}))
  health.set('SERVING')
  log.info({control: listen.port, data: listen.port + 1, syncAgent: listen.port + 2, directory: options.directory}, 'replica ready')
  const owned = undo.move()
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => (closed ??= owned.close())
  return {address: listen, close, [Symbol.asyncDispose]: close}
}
