// A volume on this host, served on a port of the loopback interface that stays the same however often its engine changes.
import {stat} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {longhorn} from '../cli/run-program.js'
import {Daemon} from '../peers/support/daemon.js'
import {freePort} from '../support/sockets.js'

const REPLICAS = 2
const BLOCK_BYTES = 512

export type FrontendName = 'nbd' | 'iscsi'

export class ServedVolume {
  readonly name: string
  #sizeBytes: number
  readonly port: number
  readonly #folder: string
  readonly #frontend: FrontendName
  readonly #flags: readonly string[]
  readonly #replicas: Daemon[] = []
  readonly #addresses: string[] = []
  #engine: Daemon | undefined
  /** Where its control service is. */
  #control = ''

  private constructor(folder: string, name: string, frontend: FrontendName, sizeBytes: number, port: number, flags: readonly string[]) {
    this.#folder = folder
    this.name = name
    this.#frontend = frontend
    this.#sizeBytes = sizeBytes
    this.port = port
    this.#flags = flags
  }

  /** Starts replicas and an engine; `flags` are further ones of the engine. */
  static async start(folder: string, name: string, frontend: FrontendName, sizeBytes: number, flags: readonly string[] = []): Promise<ServedVolume> {
    const volume = new ServedVolume(folder, name, frontend, sizeBytes, await freePort(), flags)
    try {
      for (const directory of volume.#directories) {
        const replica = new Daemon(['replica', directory, '--size', `${sizeBytes}`, '--listen', '127.0.0.1:0'])
        volume.#replicas.push(replica)
        volume.#addresses.push((await replica.ready())['control']!)
      }
      await volume.startEngine()
      return volume
    } catch (error) {
      await volume.kill()
      throw error
    }
  }

  async startEngine(): Promise<void> {
    const where = ['--listen', '127.0.0.1:0', '--frontend', this.#frontend, '--frontend-listen', `127.0.0.1:${this.port}`]
    const replicas = this.#addresses.flatMap(address => ['--replica', address])
    this.#engine = new Daemon(['engine', this.name, '--size', `${this.sizeBytes}`, ...where, ...replicas, ...this.#flags])
    this.#control = (await this.#engine.ready())['control']!
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  /** Makes it larger while it is being used. */
  async expand(sizeBytes: number): Promise<void> {
    const {exitCode, stderr} = await longhorn(['volume', 'expand', `${sizeBytes}`, '--engine', this.#control])
    if (exitCode !== 0) throw new Error(`volume expand: ${stderr}`)
    this.#sizeBytes = sizeBytes
  }

  async killEngine(): Promise<void> {
    await this.#engine?.kill()
  }

  /** Another engine for the same replicas, after a while without one. */
  async restartEngine(how: 'SIGTERM' | 'SIGKILL', pauseMs: number): Promise<void> {
    await (how === 'SIGTERM' ? this.#engine?.stop() : this.#engine?.kill())
    await sleep(pauseMs)
    await this.startEngine()
  }

  /** What the replicas take on disk, each. */
  async allocatedBytes(): Promise<number[]> {
    return Promise.all(this.#directories.map(async directory => (await stat(join(directory, 'volume-head-000.img'))).blocks * BLOCK_BYTES))
  }

  /** The orderly way: the engine first, then the replicas. */
  async stop(): Promise<void> {
    await this.#engine?.stop()
    for (const replica of this.#replicas) await replica.stop()
  }

  /** Safe twice, and after stop(). */
  async kill(): Promise<void> {
    for (const daemon of [this.#engine, ...this.#replicas]) await daemon?.kill()
  }

  get #directories(): string[] {
    return Array.from({length: REPLICAS}, (_, index) => join(this.#folder, `${this.name}-${index}`))
  }
}
