// Programs of the system (losetup, umount, …), run so that none of them can hold us up. One that waits inside the kernel
// for a dead volume cannot even be killed; it is then left to itself, and ends when what it waits for is gone.
import {constants} from 'node:fs'
import {access} from 'node:fs/promises'
import {join} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {execa} from 'execa'
import {LonghornError} from '../../lib/errors.js'

/** After this a killed program counts as stuck in the kernel. */
const KILL_GRACE_MS = 300

export interface CommandLimits {
  readonly timeoutMs: number
  readonly signal?: AbortSignal
}

export interface CommandResult {
  readonly ok: boolean
  /** Undefined when a signal has ended it. */
  readonly exitCode: number | undefined
  readonly stdout: string
  readonly stderr: string
}

/** Where programs are looked for: cron and service managers often leave out the sbin directories. */
export function searchPath(): string {
  return [process.env.PATH, '/usr/sbin', '/usr/bin', '/sbin', '/bin'].filter(Boolean).join(':')
}

/** True when this program can be run. */
export async function isInstalled(program: string): Promise<boolean> {
  for (const folder of searchPath().split(':')) {
    try {
      await access(join(folder, program), constants.X_OK)
      return true
    } catch {
      // Not in this folder.
    }
  }
  return false
}

/**
 * Runs a program to its end. An exit code other than 0 is a result with `ok: false`.
 * Throws UNSUPPORTED when there is no such program, TIMEOUT, or the signal's reason; the program has then been killed.
 */
export async function tryCommand(command: string, args: readonly string[], {timeoutMs, signal}: CommandLimits): Promise<CommandResult> {
  signal?.throwIfAborted()
  const child = execa(command, args, {
    reject: false,
    cleanup: false,
    stdin: 'ignore',
    env: {LC_ALL: 'C', PATH: searchPath()},
  })
  const done = new AbortController()
  const limit = signal === undefined ? done.signal : AbortSignal.any([done.signal, signal])
  const result = await Promise.race([child, sleep(timeoutMs, undefined, {signal: limit}).catch(() => undefined)])
  done.abort()
  if (result === undefined) {
    child.kill('SIGKILL')
    await Promise.race([child, sleep(KILL_GRACE_MS)])
    child.stdout.destroy()
    child.stderr.destroy()
    child.unref()
    signal?.throwIfAborted()
    throw new LonghornError('TIMEOUT', `"${[command, ...args].join(' ')}" did not end within ${timeoutMs} ms`)
  }
  if (result.exitCode === undefined && result.code === 'ENOENT') {
    throw new LonghornError('UNSUPPORTED', `${command} is not installed`, {command})
  }
  return {ok: !result.failed, exitCode: result.exitCode, stdout: result.stdout.trim(), stderr: result.stderr.trim() || (result.shortMessage ?? '')}
}

/** As `tryCommand`, but throws IO with what the program said when it fails. Returns its output. */
export async function runCommand(command: string, args: readonly string[], limits: CommandLimits): Promise<string> {
  const {ok, stdout, stderr} = await tryCommand(command, args, limits)
  if (!ok) throw new LonghornError('IO', `"${[command, ...args].join(' ')}" failed: ${stderr}`, {command, args, stderr})
  return stdout
}
