// What the quickstart shows, from the first replica to the comparison of those that are left.
import {randomInt} from 'node:crypto'
import {setTimeout as sleep} from 'node:timers/promises'
import {Cleanup} from '../../src/lib/cleanup.js'
import {LonghornError, messageOf} from '../../src/lib/errors.js'
import type {Daemon} from './daemon.js'
import {withDeadline} from './deadline.js'
import {MB, PIECE_BYTES} from './demo-files.js'
import {FileSystemUser} from './file-system-user.js'
import type {Choice, Frontend} from './frontend-choice.js'
import {findNbdTools, NbdUser} from './nbd-user.js'
import {compareReplicas} from './replica-comparison.js'
import type {Screen} from './screen.js'
import {Shell} from './shell.js'
import {shellWords} from './shell-words.js'
import {SocketUser} from './socket-user.js'
import {VolumeStage} from './volume-stage.js'
import type {VolumeUser} from './volume-user.js'
import type {Workspace} from './workspace.js'
import {Writer, type Mark} from './writer.js'

export interface StoryOptions {
  /** What to serve the volume by, the best first; the last one is possible. */
  readonly choices: readonly Choice[]
  /** How long to write. */
  readonly seconds: number
}

/** The volume has 512 MiB, of which the file system takes some. */
const MAX_WRITTEN_BYTES = 400 * MB
/** When the replica is killed. */
const KILL_AT = 0.4
const WATCH_MS = 100

/** The volume in use. */
interface Scene {
  readonly frontend: Frontend
  readonly engine: Daemon
  readonly user: VolumeUser
}

/** What is left when all has been shown: two replicas that are running, and no engine. */
export interface Ending {
  /** What has been seen, in a sentence. */
  readonly summary: string
  readonly survivors: readonly Daemon[]
  readonly frontend: Frontend
}

export class Story {
  readonly #workspace: Workspace
  readonly #screen: Screen
  readonly #options: StoryOptions
  readonly #stage: VolumeStage
  readonly #shell: Shell
  readonly #signal: AbortSignal
  readonly #held = new Cleanup()

  constructor(workspace: Workspace, screen: Screen, options: StoryOptions, signal: AbortSignal) {
    this.#workspace = workspace
    this.#screen = screen
    this.#options = options
    this.#signal = signal
    this.#stage = new VolumeStage(workspace, workspace.record!.volume, screen)
    this.#shell = new Shell(screen)
  }

  /** Shows everything. Whatever happens, what it has started is left to the caller to end; close() comes first. */
  async run(): Promise<Ending> {
    const {replicas} = this.#stage
    await this.#step('Three replicas: three processes, each with a copy of the volume in a directory of its own', 30, signal =>
      this.#stage.startReplicas(signal),
    )
    const scene = await this.#step('An engine that writes to all three, and a use for the volume', 60, signal => this.#open(signal))
    const [victim, ...survivors] = replicas as [Daemon, Daemon, Daemon]
    const writer = await this.#step('Files are written, and a replica is killed meanwhile', this.#options.seconds * 4 + 60, signal =>
      this.#writeAndKill(scene, victim, signal),
    )
    await this.#step('Nothing is lost: everything is read back', 90, signal => this.#readBack(scene, writer, signal))
    await this.#step('The two that are left hold the same', 120, signal => this.#compare(scene, victim, survivors, signal))
    return {summary: summarize(writer), survivors, frontend: scene.frontend}
  }

  /** The volume once more, for the user to play with. */
  async serveAgain({survivors, frontend}: Ending): Promise<Daemon> {
    return this.#step('The volume goes on being served', 60, async signal => {
      const engine = await this.#stage.startEngine('engine', survivors, frontend, signal)
      if (frontend === 'blockdev') await FileSystemUser.mount(engine.ready.endpoint!, this.#workspace.mountPoint, this.#shell, signal)
      return engine
    })
  }

  /** Gives up what this process holds: open files, connections, tools that it feeds. */
  async close(): Promise<void> {
    await this.#held.close()
  }

  async #step<T>(title: string, seconds: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.#screen.step(title)
    return withDeadline(title, seconds, this.#signal, work)
  }

  async #open(signal: AbortSignal): Promise<Scene> {
    const {choices} = this.#options
    for (const choice of choices) {
      if (choice.ok) {
        this.#screen.say(`This machine can do "${choice.frontend}": ${choice.with}.`)
        const scene = await this.#tryOpen(choice, choice === choices.at(-1), signal)
        if (scene !== undefined) return scene
      } else {
        this.#screen.say(`Not "${choice.frontend}": ${choice.reason}.`)
      }
    }
    throw new Error('there is always a last choice')
  }

  /** Undefined when it did not work and there is something else to try: a container may hold back more than it shows. */
  async #tryOpen({frontend}: Choice, isLast: boolean, signal: AbortSignal): Promise<Scene | undefined> {
    let engine: Daemon | undefined
    try {
      engine = await this.#stage.startEngine('engine', this.#stage.replicas, frontend, signal)
      await this.#shell.longhorn(['replica', 'ls', '--engine', engine.control], signal)
      const user = await this.#use(frontend, engine.ready.endpoint ?? '', signal)
      this.#held.add(user)
      return {frontend, engine, user}
    } catch (error) {
      if (isLast || signal.aborted) throw error
      this.#screen.say(`That did not work: ${messageOf(error)}`)
      await engine?.stop(20)
      return undefined
    }
  }

  async #use(frontend: Frontend, endpoint: string, signal: AbortSignal): Promise<VolumeUser> {
    switch (frontend) {
      case 'blockdev':
        return FileSystemUser.open(endpoint, this.#workspace.mountPoint, this.#shell, signal)
      case 'nbd':
        return NbdUser.open(endpoint, (await findNbdTools())!, this.#workspace, this.#shell)
      case 'socket':
        return SocketUser.open(endpoint, this.#screen, signal)
    }
  }

  async #writeAndKill({engine, user}: Scene, victim: Daemon, signal: AbortSignal): Promise<Writer> {
    const writer = new Writer(user, {seconds: this.#options.seconds, maxBytes: MAX_WRITTEN_BYTES})
    const writing = writer.run(signal)
    await this.#watch(writer, writing, writer.mark(), 'written to three replicas', () => writer.fraction >= KILL_AT)
    // Somewhere in the middle of a request, not at the end of one.
    await sleep(randomInt(20))
    const before = writer.takeLongest()
    const atKill = writer.mark()
    this.#screen.command(['kill', '-9', `${victim.process.pid}`])
    victim.kill()
    const list = await Promise.race([this.#shell.longhorn(['replica', 'ls', '--engine', engine.control], signal), never(writing)])
    if (countErrors(list) !== 1) throw new LonghornError('IO', `one replica was killed, and the engine shows ${countErrors(list)} as failed`)
    await this.#watch(writer, writing, atKill, 'written to the two that are left', () => false)
    await user.finish(writer.files, signal)
    const waits = `${before.toFixed(0)} ms before the kill, ${writer.takeLongest().toFixed(0)} ms from then on`
    this.#screen.good('no write failed')
    this.#screen.good(`longest wait until ${PIECE_BYTES / 1024} KiB were ${user.durably}: ${waits}`)
    return writer
  }

  /** Shows how far it is until it has ended or `enough` says so. The speed is that since `from`. */
  async #watch(writer: Writer, writing: Promise<void>, from: Mark, what: string, enough: () => boolean): Promise<void> {
    using progress = await this.#screen.progress('writing …')
    const speed = (): string => `${((writer.bytes - from.bytes) / 1000 / (writer.elapsedMs - from.elapsedMs)).toFixed(0)} MB/s`
    let ended = false
    const end = writing.then(() => {
      ended = true
    })
    while (!ended && !enough()) {
      await Promise.race([end, sleep(WATCH_MS)])
      progress.update(`writing ${bar(writer.fraction)} ${megabytes(writer.bytes)}, ${speed()}`)
    }
    progress.succeed(`${megabytes(writer.bytes - from.bytes)} ${what}, ${speed()}`)
  }

  async #readBack({engine, user}: Scene, {files, bytes}: Writer, signal: AbortSignal): Promise<void> {
    await user.reopen(signal)
    await user.verify(files, signal)
    this.#screen.good(`${files.length} files, ${megabytes(bytes)}: every SHA-256 is what it was when they were written`)
    await this.#shell.longhorn(['volume', 'info', '--engine', engine.control], signal)
  }

  async #compare({engine, user, frontend}: Scene, victim: Daemon, survivors: readonly Daemon[], signal: AbortSignal): Promise<void> {
    await user.leave(signal)
    await this.#stage.stop(engine, signal)
    await compareReplicas(this.#stage, survivors, frontend, this.#screen, signal)
    this.#screen.good(`${survivors.map(({name}) => name).join(' and ')} are identical, byte for byte`)
    const found = await this.#shell.script(`grep -o '"Dirty":[a-z]*' ${shellWords([this.#workspace.directory]).join('')}/replica-*/volume.meta`, signal)
    const clean = found.split('\n').filter(line => line.endsWith(':false')).length
    if (clean !== survivors.length) throw new LonghornError('CORRUPT', `${clean} replicas were closed cleanly, expected ${survivors.length}`)
    this.#screen.good(`both were closed cleanly; ${victim.name}, which was killed, remembers that it was not`)
  }
}

function summarize({files, bytes, longestMs}: Writer): string {
  return (
    `${files.length} files, ${megabytes(bytes)}, went to a volume with three replicas, and one of the three was killed meanwhile. ` +
    `The writer never waited for more than ${longestMs.toFixed(0)} ms, nothing was lost, and the two that are left are identical.`
  )
}

/** Rejects when `work` does, and never resolves. */
function never(work: Promise<void>): Promise<never> {
  return new Promise((_, reject) => {
    work.catch(reject)
  })
}

function countErrors(list: string): number {
  return list.match(/\bERR\b/g)?.length ?? 0
}

function megabytes(bytes: number): string {
  return `${(bytes / MB).toFixed(0)} MB`
}

function bar(fraction: number): string {
  const full = Math.round(fraction * 20)
  return '█'.repeat(full) + '░'.repeat(20 - full)
}
