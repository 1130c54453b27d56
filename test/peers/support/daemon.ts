import {spawn, type ChildProcess} from 'node:child_process'
import {once} from 'node:events'
import {existsSync} from 'node:fs'
import {setTimeout as sleep} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import {until} from '../../support/until.js'

export const LONGHORN = fileURLToPath(new URL('../../../../bin/longhorn', import.meta.url))

const START_TIMEOUT_MS = 60_000
/** The engine may take its time with a device that is in use. */
const STOP_TIMEOUT_MS = 90_000

/** The kernel kills what is started behind this when the test's process ends, also when that was killed itself. */
export const LEASH: readonly string[] = existsSync('/usr/bin/setpriv') ? ['/usr/bin/setpriv', '--pdeathsig', 'KILL'] : []

/** A process that serves, started as a person starts it: `longhorn replica …` or `longhorn engine …`. */
export class Daemon {
  readonly #child: ChildProcess
  readonly #exited: Promise<unknown>
  readonly #what: string
  #output = ''
  #log = ''

  constructor(args: readonly string[]) {
    this.#what = `longhorn ${args.slice(0, 2).join(' ')}`
    const [program = '', ...rest] = [...LEASH, process.execPath, LONGHORN, ...args, '--json']
    this.#child = spawn(program, rest, {stdio: ['ignore', 'pipe', 'pipe']})
    this.#exited = once(this.#child, 'close')
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => (this.#output += text))
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => (this.#log += text))
  }

  /** Resolves with what it announces when it is ready. Throws with what it said when it ends instead. */
  async ready(): Promise<Readonly<Record<string, string>>> {
    await until(() => this.#output.includes('\n') || !this.isRunning, `${this.#what} is ready`, START_TIMEOUT_MS)
    if (!this.isRunning) await this.#exited
    if (!this.#output.startsWith('{"ready"')) throw new Error(`${this.#what} did not start: ${this.#output}\n${this.#log}`)
    return JSON.parse(this.#output) as Record<string, string>
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** What it has logged so far. */
  get log(): readonly Record<string, unknown>[] {
    return this.#log.split('\n').flatMap(line => (line.startsWith('{') ? [JSON.parse(line) as Record<string, unknown>] : []))
  }

  /** Waits for its end, which somebody else brings about. Throws unless with exit code 0. */
  async ended(): Promise<void> {
    await this.#exited
    if (this.#child.exitCode !== 0) throw new Error(`${this.#what} ended with ${this.#child.exitCode ?? this.#child.signalCode}\n${this.#log}`)
  }

  /** Asks it to end. Throws unless it does, with exit code 0. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM')
    await Promise.race([this.#exited, sleep(STOP_TIMEOUT_MS, undefined, {ref: false})])
    if (this.#child.exitCode === 0) return
    const end = this.isRunning ? 'has not ended' : `ended with ${this.#child.exitCode ?? this.#child.signalCode}`
    throw new Error(`${this.#what} ${end} after SIGTERM\n${this.#output}${this.#log}`)
  }

  /** Asks it to end, and insists as soon as `when` is logged, which the way of a SIGTERM to its end must lead past. Gives its exit code. */
  async interrupt(when: RegExp): Promise<number | null> {
    this.#child.kill('SIGTERM')
    await until(() => this.log.some(({msg}) => when.test(String(msg))) || !this.isRunning, `${this.#what} logs ${when}`, STOP_TIMEOUT_MS)
    this.#child.kill('SIGTERM')
    await this.#exited
    return this.#child.exitCode
  }

  /** `kill -9`. Safe twice. */
  async kill(): Promise<void> {
    if (this.isRunning) this.#child.kill('SIGKILL')
    await this.#exited
  }

  /** It is there and answers nothing any more. */
  suspend(): void {
    this.#child.kill('SIGSTOP')
  }
}
