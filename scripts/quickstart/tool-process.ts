// Programs of the system. Each runs in a session of its own: Ctrl-C at our terminal must not end it under our hands, where
// it would look like a failure; whoever waits for it ends it.
import {spawn, type ChildProcessWithoutNullStreams} from 'node:child_process'
import {searchPath} from '../../src/drivers/attach/run-command.js'
import {LonghornError} from '../../src/lib/errors.js'

const STDERR_CHARS = 4000

export type Argv = readonly [program: string, ...args: string[]]

export interface ToolResult {
  readonly ok: boolean
  readonly stdout: string
  /** What it says on stderr; if it failed without a word, how it ended. */
  readonly stderr: string
}

/** Runs a program to its end. When `signal` is aborted it is killed, not waited for, and the signal's reason is thrown. */
export async function runTool(argv: Argv, signal: AbortSignal): Promise<ToolResult> {
  signal.throwIfAborted()
  const tool = new ToolProcess(argv)
  let stdout = ''
  tool.child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  const outcome = tool.end().then(
    () => ({ok: true, stdout: stdout.trimEnd(), stderr: ''}),
    (error: Error) => ({ok: false, stdout: stdout.trimEnd(), stderr: tool.said || error.message}),
  )
  let stop: () => void = () => undefined
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error)
    signal.addEventListener('abort', stop, {once: true})
  })
  try {
    return await Promise.race([outcome, aborted])
  } catch (error) {
    tool.kill()
    throw error
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/** A program that may be fed while it runs. Whoever stops waiting for it kills it. */
export class ToolProcess {
  readonly child: ChildProcessWithoutNullStreams
  readonly #ended: Promise<void>
  #stderr = ''

  constructor([program, ...args]: Argv, cwd?: string) {
    this.child = spawn(program, args, {cwd, detached: true, env: {...process.env, LC_ALL: 'C', PATH: searchPath()}})
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_CHARS)
    })
    // What it says when it ends says more than that a pipe is broken.
    this.child.stdin.on('error', () => undefined)
    this.#ended = new Promise((resolve, reject) => {
      this.child.on('error', error => reject(new LonghornError('IO', `${program} cannot be run: ${error.message}`)))
      this.child.on('close', (code, signal) => {
        if (code === 0) resolve()
        else reject(new LonghornError('IO', `${program} failed: ${this.said || signal || `exit code ${code}`}`))
      })
    })
    this.#ended.catch(() => undefined)
  }

  /** The end of what it has printed on stderr. */
  get said(): string {
    return this.#stderr.trim()
  }

  /** Waits for `work`, but not longer than the program runs: it throws IO when that ends first. */
  async while<T>(work: Promise<T>): Promise<T> {
    const gone = this.#ended.then(() => {
      throw new LonghornError('IO', `${this.child.spawnfile} ended too early: ${this.said}`)
    })
    return Promise.race([work, gone])
  }

  /** Closes its input and waits for its end. Throws IO when it failed. */
  async end(): Promise<void> {
    this.child.stdin.end()
    await this.#ended
  }

  kill(): void {
    this.child.kill('SIGKILL')
  }
}
