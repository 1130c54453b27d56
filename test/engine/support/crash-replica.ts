import {rmSync} from 'node:fs'
import {formatAddress, type TcpAddress} from '../../../src/lib/address.js'
import {Cleanup} from '../../../src/lib/cleanup.js'
import {isAddressInUse, LonghornError} from '../../../src/lib/errors.js'
import {RpcServer} from '../../../src/protocol/grpc/server.js'
import {DataServer} from '../../../src/replica/data-server.js'
import {Replica} from '../../../src/replica/replica.js'
import {replicaService} from '../../../src/replica/replica-service.js'
import {RebuildTarget} from '../../../src/replica/ssync/rebuild-target.js'
import {memoryLog} from './fake-replicas.js'

const HOST = '127.0.0.1'

/** A replica process in this process, which can be killed: from one moment to the next it answers nothing any more. */
export class CrashReplica {
  private constructor(
    readonly directory: string,
    readonly port: number,
    readonly replica: Replica,
    readonly lines: Record<string, unknown>[],
    readonly data: DataServer,
    readonly rpc: RpcServer,
  ) {}

  /** `port`: of its control service, if that is free still; 0 for any. */
  static async start(directory: string, port: number, sizeBytes?: number): Promise<CrashReplica> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await CrashReplica.#startAt(directory, attempt === 1 ? port : 0, sizeBytes)
      } catch (error) {
        if (!isAddressInUse(error) || attempt === 20) throw error
      }
    }
  }

  static async #startAt(directory: string, port: number, sizeBytes: number | undefined): Promise<CrashReplica> {
    const {log, lines} = memoryLog()
    await using undo = new Cleanup()
    const data = undo.add(await DataServer.start({kind: 'tcp', host: HOST, port: port === 0 ? 0 : port + 1}, log))
    const at = (data.address as TcpAddress).port - 1
    const replica = await Replica.take(directory, sizeBytes, data, log)
    undo.defer(() => replica.giveBack())
    const rpc = await RpcServer.start({listen: {kind: 'tcp', host: HOST, port: at}, services: [replicaService(replica, new RebuildTarget(replica, log))], log})
    undo.move()
    return new CrashReplica(directory, at, replica, lines, data, rpc)
  }

  get address(): string {
    return formatAddress({kind: 'tcp', host: HOST, port: this.port})
  }

  /**
   * Ends it, after `capture` has saved what its directory is at this moment: what is done to it later is not seen by anyone. The directory
   * is gone when this resolves.
   */
  async kill(capture: (directory: string) => void): Promise<void> {
    this.data.serve(undefined)
    this.data.disconnectAll(new LonghornError('INTERRUPTED', 'killed'))
    const ended = this.rpc.destroy()
    capture(this.directory)
    await ended
    await this.data.close()
    await this.replica.giveBack().catch(() => undefined)
    rmSync(this.directory, {recursive: true, force: true})
  }

  async close(): Promise<void> {
    await this.rpc.close()
    await this.data.close()
    await this.replica.giveBack()
  }
}
