// Replicas and an engine, each a process, under a load that knows what it has been promised.
import {existsSync, readFileSync} from 'node:fs'
import {join} from 'node:path'
import type {Test} from 'tap'
import {parseAddress} from '../../../src/lib/address.js'
import {connect, type RpcClient} from '../../../src/protocol/grpc/client.js'
import {ControllerServiceDefinition, ReplicaMode} from '../../../src/protocol/proto/generated/controller.js'
import {startEngine, startReplica, type Daemon} from '../../support/daemons.js'
import {replicaImage, replicaSum} from '../../support/replica-image.js'
import {shortDir} from '../../support/short-dir.js'
import {until} from '../../support/until.js'
import type {VerifiedLoad} from './verified-load.js'

export const SIZE_BYTES = 32 * 1024 * 1024

export interface Replica {
  daemon: Daemon
  address: string
  readonly directory: string
}

export class System {
  readonly replicas: Replica[] = []
  engine: Daemon | undefined
  /** Address of the engine's control service. */
  control = ''
  readonly socket: string

  private constructor(
    readonly t: Test,
    readonly folder: string,
  ) {
    this.socket = join(folder, 'vol.sock')
  }

  /** `places`: directories for the first of them, instead of in a folder of the test. */
  static async start(t: Test, replicas: number, engineFlags: readonly string[] = [], places: readonly string[] = []): Promise<System> {
    const system = new System(t, shortDir(t))
    const directories = Array.from({length: replicas}, (_, index) => places[index] ?? join(system.folder, `replica-${index}`))
    system.replicas.push(...(await Promise.all(directories.map(async directory => ({...(await startReplica(t, directory, SIZE_BYTES)), directory})))))
    await system.startEngine(system.replicas, engineFlags)
    return system
  }

  /** The replicas that the engine has in use. */
  async inUse(): Promise<Replica[]> {
    const {replicas} = await this.ask(rpc => rpc.replicaList())
    const addresses = replicas.filter(({mode}) => mode === ReplicaMode.RW).map(({address}) => address?.address)
    return this.replicas.filter(({address}) => addresses.includes(address))
  }

  /** Asks the engine. */
  async ask<T>(question: (rpc: RpcClient<typeof ControllerServiceDefinition>) => Promise<T>): Promise<T> {
    const rpc = connect(ControllerServiceDefinition, {peer: 'engine', address: parseAddress(this.control)})
    try {
      return await question(rpc)
    } finally {
      rpc.destroy()
    }
  }

  /** Until what the last crash may have made different has been compared. */
  async resynced(): Promise<void> {
    await until(async () => (await this.inUse()).length === this.replicas.length, 'all replicas are up to date', 60_000)
  }

  async startEngine(replicas: readonly Replica[], more: readonly string[] = []): Promise<void> {
    const options = {sizeBytes: SIZE_BYTES, replicas: replicas.map(({address}) => address), socket: this.socket, more}
    const {daemon, address} = await startEngine(this.t, options)
    this.engine = daemon
    this.control = address
  }

  /** A process that was killed comes back, on another port. */
  async restart(replica: Replica): Promise<void> {
    Object.assign(replica, await startReplica(this.t, replica.directory, SIZE_BYTES))
  }

  /** Stops everything in order; all processes must say that it went well. */
  async stop(replicas: readonly Replica[] = this.replicas): Promise<void> {
    this.t.same(await this.engine!.end('SIGTERM'), [0, null], 'the engine ends well')
    for (const {daemon} of replicas) this.t.same(await daemon.end('SIGTERM'), [0, null], 'the replica ends well')
    this.t.notOk(existsSync(this.socket), 'the socket is removed')
    for (const replica of replicas) {
      this.t.match(readFileSync(join(replica.directory, 'volume.meta'), 'utf8'), /"Dirty":false/, 'the replica is clean')
    }
  }
}

/** The load ends; what the volume holds is what it was promised, and after a clean stop every replica holds the same. */
export async function endsAlike(t: Test, system: System, load: VerifiedLoad): Promise<void> {
  await load.stop()
  await load.verifyAll()
  t.same(load.problems, [])
  await system.stop()
  await sameImages(t, system.replicas)
  await verifyImages(load, system.replicas)
  t.same(load.problems, [])
}

export async function sameImages(t: Test, replicas: readonly Replica[]): Promise<void> {
  const sums = await Promise.all(replicas.map(({directory}) => replicaSum(directory)))
  t.equal(new Set(sums).size, 1, 'the replicas are the same, byte for byte')
}

export async function verifyImages(load: VerifiedLoad, replicas: readonly Replica[]): Promise<void> {
  for (const {directory} of replicas) load.verifyImage(await replicaImage(directory), directory)
}
