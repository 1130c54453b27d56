// Diagnostics of the long-running processes, on stderr. Commands that a person waits for use src/cli/progress.ts instead.
// Lines are written synchronously: a line that explains a crash must not be lost with the process, and pino's
// worker threads would cost each daemon some 10 MB. Nothing is logged per I/O.
import {destination, pino, stdTimeFunctions, type DestinationStream, type Logger} from 'pino'
import {LonghornError} from './errors.js'
import {prettyLines} from './pretty-log.js'

/** `log.info({replica: address}, 'replica added')`: fields first, then what happened. Errors go under the key `err`. */
export type Log = Logger

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

let root: Log | undefined

/** The log of one component of this process. The level is LONGHORN_LOG_LEVEL, `info` when that is not set. */
export function createLog(component: string): Log {
  root ??= openLog(stderrStream(), process.env)
  return root.child({component})
}

/** A log that writes to `stream`. Throws USAGE for a level that does not exist. */
export function openLog(stream: DestinationStream, env: NodeJS.ProcessEnv): Log {
  const level = env.LONGHORN_LOG_LEVEL || 'info'
  if (!(LEVELS as readonly string[]).includes(level)) {
    throw new LonghornError('USAGE', `LONGHORN_LOG_LEVEL is "${level}": expected one of ${LEVELS.join(', ')}`)
  }
  const options = {
    level,
    base: null,
    timestamp: stdTimeFunctions.isoTime,
    formatters: {level: (label: string) => ({level: label})},
  }
  return pino(options, stream)
}

/** One readable line per entry on a terminal, JSON for everything else. */
function stderrStream(): DestinationStream {
  if (process.stderr.isTTY) return prettyLines(line => process.stderr.write(line))
  return destination({dest: 2, sync: true})
}
