import {spawn} from 'node:child_process'
import {closeSync, openSync} from 'node:fs'
import {readFile} from 'node:fs/promises'
import {join, relative} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {fileURLToPath} from 'node:url'
import {identify, signalProcess, waitForExit, type ProcessId} from '../../src/drivers/attach/process-identity.js'
import {LonghornError} from '../../src/lib/errors.js'
import type {Argv} from './tool-process.js'
import type {Role, Workspace} from './workspace.js'

/** Seen from dist/scripts/quickstart. */
const LONGHORN = fileURLToPath(new URL('../../../bin/longhorn', import.meta.url))
const POLL_MS = 20
const LOG_TAIL_CHARS = 600

/** `bin/longhorn …` as it is typed where the user is. */
export function longhornCommand(args: readonly string[]): string[] {
  const here = process.env.INIT_CWD ?? process.cwd()
  const path = relative(here, LONGHORN)
  return [path.startsWith('..') ? LONGHORN : path, ...args]
}

/** The program and its arguments, for this Node and not for whatever `node` is first in PATH. */
export function longhornProgram(args: readonly string[]): Argv {
  return [process.execPath, LONGHORN, ...args]
}

/** A longhorn process in the background. It goes on when this process ends, in whatever way. */
export class Daemon {
  readonly #workspace: Workspace

  private constructor(
    workspace: Workspace,
    readonly name: string,
    readonly process: ProcessId,
    /** What it announced: `control`, and `endpoint` of an engine. */
    readonly ready: Readonly<Record<string, string>>,
  ) {
    this.#workspace = workspace
  }

  /** Resolves when it is ready. Its output goes to files, as pipes would end with this process. */
  static async start(workspace: Workspace, name: string, role: Role, args: readonly string[], signal: AbortSignal): Promise<Daemon> {
    signal.throwIfAborted()
    const stdoutFile = join(workspace.logs, `${name}.out`)
    const stderrFile = join(workspace.logs, `${name}.log`)
    const stdout = openSync(stdoutFile, 'w')
    const stderr = openSync(stderrFile, 'w')
    const [program, ...programArgs] = longhornProgram([role, ...args, '--json'])
    // A session of its own: Ctrl-C at our terminal must not reach it, as the file system has to be unmounted first.
    const child = spawn(program, programArgs, {detached: true, stdio: ['ignore', stdout, stderr]})
    const failed = new Promise<never>((_, reject) => {
      child.on('error', error => reject(new LonghornError('IO', `${name} cannot be started: ${error.message}`)))
      child.on('exit', () => {
        void describeFailure(name, stdoutFile, stderrFile).then(reject)
      })
    })
    failed.catch(() => undefined)
    child.unref()
    closeSync(stdout)
    closeSync(stderr)
    const identity = child.pid === undefined ? undefined : identify(child.pid)
    if (identity !== undefined) workspace.noteDaemon(role, identity.pid)
    const ready = await Promise.race([failed, announcement(stdoutFile, signal)])
    return new Daemon(workspace, name, identity!, ready)
  }

  /** The `host:port` of its control service. */
  get control(): string {
    return (this.ready.control ?? '').replace('tcp://', '')
  }

  kill(): void {
    signalProcess(this.process, 'SIGKILL')
  }

  /** Asks it to stop and waits until it has. Throws TIMEOUT. */
  async stop(seconds: number): Promise<void> {
    this.#workspace.noteStopping(this.process.pid)
    signalProcess(this.process, 'SIGTERM')
    if (await waitForExit(this.process, seconds * 1000)) return
    throw new LonghornError('TIMEOUT', `${this.name} (process ${this.process.pid}) has not stopped after ${seconds} s`)
  }
}

async function announcement(file: string, signal: AbortSignal): Promise<Record<string, string>> {
  for (;;) {
    const line = (await readFile(file, 'utf8')).split('\n').find(one => one.startsWith('{"ready":'))
    if (line?.endsWith('}') === true) return JSON.parse(line) as Record<string, string>
    await sleep(POLL_MS, undefined, {signal})
  }
}

async function describeFailure(name: string, stdoutFile: string, stderrFile: string): Promise<LonghornError> {
  const stdout = await readFile(stdoutFile, 'utf8').catch(() => '')
  const stderr = await readFile(stderrFile, 'utf8').catch(() => '')
  const said = messageIn(stdout) ?? (stderr.slice(-LOG_TAIL_CHARS).trim() || 'it said nothing')
  return new LonghornError('IO', `${name} did not start: ${said}`)
}

/** The message of a command that failed with --json. */
function messageIn(stdout: string): string | undefined {
  try {
    return (JSON.parse(stdout) as {error?: {message?: string}}).error?.message
  } catch {
    return undefined
  }
}
