// Processes, named so that a number that the kernel has given to someone else since is never taken for ours.
import {readdirSync, readFileSync} from 'node:fs'
import {setTimeout as sleep} from 'node:timers/promises'
import {errnoOf} from '../../lib/errors.js'

export interface ProcessId {
  readonly pid: number
  /** When it started, in clock ticks since boot. Together with the pid it is unique until the next boot. */
  readonly startTicks: number
}

const POLL_MS = 10

/** The process that has this pid now; undefined when there is none, or only its remains (a zombie). */
export function identify(pid: number): ProcessId | undefined {
  const stat = readStat(pid)
  return stat === undefined || stat.state === 'Z' || stat.state === 'X' ? undefined : {pid, startTicks: stat.startTicks}
}

export function isRunning({pid, startTicks}: ProcessId): boolean {
  return identify(pid)?.startTicks === startTicks
}

/** The processes of this program that have `argument` as one whole argument. */
export function findProcesses(program: string, argument: string): ProcessId[] {
  const found: ProcessId[] = []
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    // The name is compared first: reading the arguments of a process that hangs in a page fault can hang as well.
    if (!Number.isInteger(pid) || readStat(pid)?.program !== program) continue
    const id = identify(pid)
    if (id !== undefined && argumentsOf(pid).includes(argument) && isRunning(id)) found.push(id)
  }
  return found
}

/** What a process calls itself, for messages. */
export function programOf(pid: number): string {
  return readStat(pid)?.program ?? 'unknown'
}

/** Sends a signal, if it is still the same process. */
export function signalProcess(id: ProcessId, signal: NodeJS.Signals): void {
  if (!isRunning(id)) return
  try {
    process.kill(id.pid, signal)
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error
  }
}

/** False when it still runs after `timeoutMs`. */
export async function waitForExit(id: ProcessId, timeoutMs: number): Promise<boolean> {
  for (const deadline = performance.now() + timeoutMs; performance.now() < deadline; await sleep(POLL_MS)) {
    if (!isRunning(id)) return true
  }
  return !isRunning(id)
}

/** /proc/PID/stat: `PID (NAME) STATE …`, with the start time as field 22. A name may contain anything, also ") ". */
function readStat(pid: number): {program: string; state: string; startTicks: number} | undefined {
  const text = readProc(`/proc/${pid}/stat`)
  const end = text.lastIndexOf(')')
  if (end === -1) return undefined
  const [state = '', ...rest] = text.slice(end + 2).split(' ')
  return {program: text.slice(text.indexOf('(') + 1, end), state, startTicks: Number(rest[18])}
}

function argumentsOf(pid: number): string[] {
  return readProc(`/proc/${pid}/cmdline`).split('\0')
}

/** Empty when the process has gone meanwhile. */
function readProc(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const code = errnoOf(error)
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES') return ''
    throw error
  }
}
