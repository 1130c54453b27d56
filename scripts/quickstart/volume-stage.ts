// The processes of the quickstart's volume: three replicas, and engines over some of them.
import type {Screen} from './screen.js'
import {Daemon, longhornCommand} from './daemon.js'
import type {Frontend} from './frontend-choice.js'
import type {Workspace} from './workspace.js'

export const VOLUME_BYTES = 512 * 1024 * 1024
const SIZE = '512m'
const REPLICAS = 3
const STOP_SECONDS = 25

export class VolumeStage {
  readonly replicas: Daemon[] = []
  readonly #workspace: Workspace
  readonly #screen: Screen
  readonly volume: string

  constructor(workspace: Workspace, volume: string, screen: Screen) {
    this.#workspace = workspace
    this.#screen = screen
    this.volume = volume
  }

  async startReplicas(signal: AbortSignal): Promise<void> {
    const starting = Array.from({length: REPLICAS}, (_, index) => {
      const name = `replica-${index + 1}`
      const args = [this.directoryOf(name), '--size', SIZE, '--listen', '127.0.0.1:0']
      this.#screen.command(longhornCommand(['replica', ...args]), ' &')
      return Daemon.start(this.#workspace, name, 'replica', args, signal)
    })
    this.replicas.push(...(await Promise.all(starting)))
    for (const {name, control, process} of this.replicas) this.#screen.output(`${name} is ready at ${control}, process ${process.pid}`)
  }

  /** An engine over these replicas; what it serves is `ready.endpoint`. */
  async startEngine(name: string, replicas: readonly Daemon[], frontend: Frontend, signal: AbortSignal): Promise<Daemon> {
    const args = [this.volume, '--size', SIZE, '--listen', '127.0.0.1:0']
    for (const {control} of replicas) args.push('--replica', `tcp://${control}`)
    args.push('--frontend', frontend)
    if (frontend !== 'blockdev') args.push('--frontend-listen', `unix:${this.#workspace.path(`${name}.sock`)}`)
    this.#screen.command(longhornCommand(['engine', ...args]), ' &')
    if (frontend === 'blockdev') this.#workspace.note({blockDevice: true})
    const engine = await Daemon.start(this.#workspace, name, 'engine', args, signal)
    this.#screen.output(`${name} is ready at ${engine.control}, process ${engine.process.pid}, and serves\n${engine.ready.endpoint}`)
    return engine
  }

  async stop(daemon: Daemon, signal: AbortSignal): Promise<void> {
    this.#screen.command(['kill', `${daemon.process.pid}`])
    await daemon.stop(STOP_SECONDS)
    signal.throwIfAborted()
    this.#screen.output(`${daemon.name} has stopped`)
  }

  directoryOf(replica: string): string {
    return this.#workspace.path(replica)
  }
}
