import {spawn, type ChildProcess} from 'node:child_process'
import {readFileSync} from 'node:fs'
import {createInterface} from 'node:readline'
import {fileURLToPath} from 'node:url'
import type {Test} from 'tap'

const LONGHORN = fileURLToPath(new URL('../../../bin/longhorn', import.meta.url))
/** Of an error message. */
const MOST_LINES = 200
const START_TIMEOUT_MS = 60_000

/** A process of ours, run by the real binary. Whatever becomes of the test, it is ended. */
export class Daemon {
  /** All that it has written to stderr, so that what is looked for cannot have scrolled away. */
  readonly stderr: string[] = []
  /** Exit code and signal, once it has ended. */
  readonly exited: Promise<readonly [number | null, NodeJS.Signals | null]>
  #running = true
  readonly #awaited = new Set<{readonly text: string; readonly heard: () => void}>()

  constructor(
    readonly args: readonly string[],
    readonly child: ChildProcess,
  ) {
    this.exited = new Promise(resolve => {
      child.once('exit', (code, signal) => {
        this.#running = false
        resolve([code, signal])
      })
    })
    createInterface({input: child.stderr!}).on('line', line => this.#heard(line))
  }

  /** It has written a line with this. */
  said(text: string): boolean {
    return this.stderr.some(line => line.includes(text))
  }

  /** Resolves when it has written a line with this, in the moment that it does. Throws when it ends without. */
  async says(text: string): Promise<void> {
    if (this.said(text)) return
    const heard = new Promise<boolean>(resolve => this.#awaited.add({text, heard: () => resolve(true)}))
    // What it has written is read to its end.
    const closed = new Promise<boolean>(resolve => this.child.once('close', () => resolve(false)))
    if (!(await Promise.race([heard, closed]))) throw new Error(`longhorn ${this.args[0]} ended without saying "${text}":\n${this.lastLines}`)
  }

  #heard(line: string): void {
    this.stderr.push(line)
    for (const one of this.#awaited) {
      if (!line.includes(one.text)) continue
      this.#awaited.delete(one)
      one.heard()
    }
  }

  /** The last lines it has written to stderr, for messages. */
  get lastLines(): string {
    return this.stderr.slice(-MOST_LINES).join('\n')
  }

  get running(): boolean {
    return this.#running
  }

  get pid(): number {
    return this.child.pid!
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#running) process.kill(this.pid, signal)
  }

  /** Sends a signal and waits for the end. Kills it after `timeoutMs`, and throws. */
  async end(signal: NodeJS.Signals, timeoutMs = 60_000): Promise<readonly [number | null, NodeJS.Signals | null]> {
    this.signal(signal)
    let late = false
    const timer = setTimeout(() => {
      late = true
      this.signal('SIGKILL')
    }, timeoutMs)
    const result = await this.exited
    clearTimeout(timer)
    if (late) throw new Error(`longhorn ${this.args[0]} did not end within ${timeoutMs} ms of ${signal}:\n${this.lastLines}`)
    return result
  }

  /** Resident memory in MiB. */
  residentMiB(): number {
    const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1]
    return Number(kib) / 1024
  }
}

/** Starts `longhorn ARGS --json`, by `prefix` if it is given, and waits for the line that says it is ready: `control` and, for an engine, `endpoint`. */
export async function startDaemon(t: Test, args: readonly string[], prefix: readonly string[] = []): Promise<{daemon: Daemon; ready: Record<string, string>}> {
  const [command = '', ...rest] = [...prefix, process.execPath, LONGHORN, ...args, '--json']
  const child = spawn(command, rest, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {PATH: process.env.PATH, HOME: '/nonexistent', NO_COLOR: '1'},
  })
  const daemon = new Daemon(args, child)
  t.teardown(async () => {
    if (!daemon.running) return
    daemon.signal('SIGKILL')
    await daemon.exited
  })
  const output = createInterface({input: child.stdout})
  const ready = await new Promise<Record<string, string>>((resolve, reject) => {
    const fail = (what: string): void => reject(new Error(`longhorn ${args.join(' ')} ${what}:\n${daemon.lastLines}`))
    const timer = setTimeout(() => fail(`was not ready within ${START_TIMEOUT_MS} ms`), START_TIMEOUT_MS)
    const lines: string[] = []
    output.on('line', line => {
      lines.push(line)
      // An error is a JSON object of several lines, and comes with the end of the process.
      if (lines.length > 1 || !line.endsWith('}')) return
      clearTimeout(timer)
      resolve(JSON.parse(line) as Record<string, string>)
    })
    void daemon.exited.then(([code, signal]) => {
      clearTimeout(timer)
      fail(`ended with ${code ?? signal} before it was ready, saying ${lines.join(' ')}`)
    })
  })
  return {daemon, ready}
}

/** A replica process in `directory`; resolves with its address. */
export async function startReplica(t: Test, directory: string, sizeBytes: number, listen = '127.0.0.1:0', prefix: readonly string[] = []): Promise<{daemon: Daemon; address: string}> {
  const {daemon, ready} = await startDaemon(t, ['replica', directory, '--size', `${sizeBytes}`, '--listen', listen], prefix)
  return {daemon, address: ready.control!}
}

export interface EngineProcessOptions {
  readonly sizeBytes: number
  readonly replicas: readonly string[]
  /** Where the `socket` frontend listens. */
  readonly socket: string
  readonly more?: readonly string[]
  /** What runs it, see startDaemon(). */
  readonly prefix?: readonly string[]
}

/** Where a test does not say otherwise: a disk that others keep busy may take long to flush, and is not to be taken for a dead one. */
const PATIENCE = ['--engine-replica-timeout', '60'] as const

/** As an engine is to be started that is not given another time-out. */
export function patient(flags: readonly string[]): readonly string[] {
  return flags.includes(PATIENCE[0]) ? flags : [...flags, ...PATIENCE]
}

/** An engine process of volume `vol` with the `socket` frontend. */
export async function startEngine(t: Test, {sizeBytes, replicas, socket, more = [], prefix = []}: EngineProcessOptions): Promise<{daemon: Daemon; address: string}> {
  const {daemon, ready} = await startDaemon(t, [
    'engine',
    'vol',
    '--size',
    `${sizeBytes}`,
    '--listen',
    '127.0.0.1:0',
    ...replicas.flatMap(address => ['--replica', address]),
    '--frontend',
    'socket',
    '--frontend-listen',
    `unix:${socket}`,
    ...patient(more),
  ], prefix)
  return {daemon, address: ready.control!}
}
