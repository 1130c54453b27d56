// Programs that nobody here wrote, run so that none of them can hold a test up: not even one that waits inside the kernel
// for a dead device, which cannot be killed.
import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {setTimeout as sleep} from 'node:timers/promises'
import {isInstalled, searchPath} from '../../../src/drivers/attach/run-command.js'

const TIMEOUT_MS = 60_000
/** After this a killed program counts as stuck in the kernel. */
const KILL_GRACE_MS = 2000

export interface ToolOptions {
  readonly input?: string
  readonly timeoutMs?: number
}

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A reason to skip a test when one of these programs is not there, else false. */
export async function missing(...programs: readonly string[]): Promise<string | false> {
  const absent: string[] = []
  for (const program of programs) if (!(await isInstalled(program))) absent.push(program)
  return absent.length > 0 && `not installed: ${absent.join(', ')}`
}

/** Runs a program to its end, whatever that is. Throws when it does not come in time. */
export async function attempt([program, ...args]: readonly [string, ...string[]], {input = '', timeoutMs = TIMEOUT_MS}: ToolOptions = {}): Promise<Outcome> {
  const child = spawn(program, args, {stdio: 'pipe', env: {...process.env, LC_ALL: 'C', PATH: searchPath()}})
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  child.stdin.on('error', () => undefined).end(input)
  const closed = once(child, 'close')
  const done = new AbortController()
  const ended = await Promise.race([closed.then(() => true), sleep(timeoutMs, false, {signal: done.signal}).catch(() => true)]).finally(() => done.abort())
  if (ended) return {code: child.exitCode, stdout, stderr}
  child.kill('SIGKILL')
  await Promise.race([closed, sleep(KILL_GRACE_MS)])
  child.stdout.destroy()
  child.stderr.destroy()
  child.unref()
  throw new Error(`"${[program, ...args].join(' ')}" did not end within ${timeoutMs} ms\n${stdout}${stderr}`)
}

/** As attempt(), and throws with what the program said unless it ends with 0. Gives its standard output. */
export async function tool(command: readonly [string, ...string[]], options?: ToolOptions): Promise<string> {
  const {code, stdout, stderr} = await attempt(command, options)
  if (code !== 0) throw new Error(`"${command.join(' ')}" ended with ${code}\n${stdout}${stderr}`)
  return stdout
}
