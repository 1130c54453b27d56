// nbdfuse, of libnbd: shows an NBD export as a file. It stays in the foreground and ends when its mount is removed.
import {spawn} from 'node:child_process'
import {closeSync, constants, openSync} from 'node:fs'
import {readFile} from 'node:fs/promises'
import {setTimeout as sleep} from 'node:timers/promises'
import {endpointOf} from '../../../engine/frontends/nbd/endpoint.js'
import {errnoOf, LonghornError} from '../../../lib/errors.js'
import type {NbdEndpoint} from '../attach-way.js'
import {startAsIoFlusher} from '../io-flusher.js'
import {findProcesses, identify, isRunning, type ProcessId} from '../process-identity.js'
import {searchPath} from '../run-command.js'

export const NBDFUSE = 'nbdfuse'

const POLL_MS = 10
const LOG_TAIL_CHARS = 1000

export interface NbdfuseFiles {
  /** Where the export appears. Its directory exists and becomes the mount point. */
  readonly file: string
  /** Written by nbdfuse once it has mounted. */
  readonly pidFile: string
  /** Everything that it prints. */
  readonly log: string
}

export interface NbdfuseOptions {
  readonly readOnly: boolean
  readonly connections: number
  /** The name of the source in the table of mounts. */
  readonly source: string
}

/** Starts it in a session of its own, so that neither our end nor a key pressed at our terminal ends it. */
export function startNbdfuse(files: NbdfuseFiles, endpoint: NbdEndpoint, {readOnly, connections, source}: NbdfuseOptions): ProcessId {
  const args = ['--pidfile', files.pidFile, '--connections', `${connections}`, '-o', `fsname=${source}`]
  if (readOnly) args.push('--readonly')
  args.push(files.file, endpointOf(endpoint.address, endpoint.exportName))
  const log = openSync(files.log, constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND, 0o600)
  try {
    // Not by execa: its output has to go to the file directly, as we may end long before it does.
    const child = startAsIoFlusher(() =>
      spawn(NBDFUSE, args, {
        detached: true,
        stdio: ['ignore', log, log],
        cwd: '/',
        env: {...process.env, LC_ALL: 'C', PATH: searchPath()},
      }),
    )
    // Why it could not be started is said by the missing pid; `available` has looked for the program before.
    child.once('error', () => undefined)
    child.unref()
    // No identity: it has ended already, and its log says why.
    return identify(child.pid ?? 0) ?? {pid: 0, startTicks: 0}
  } finally {
    closeSync(log)
  }
}

/** Resolves when it has mounted. Throws UNREACHABLE with what it said when it ends instead, TIMEOUT, or the signal's reason. */
export async function waitForMount(id: ProcessId, files: NbdfuseFiles, timeoutMs: number, signal: AbortSignal): Promise<void> {
  for (const deadline = performance.now() + timeoutMs; performance.now() < deadline; await sleep(POLL_MS)) {
    signal.throwIfAborted()
    // Asked in this order, as it may write the file and end in between.
    const running = isRunning(id)
    if ((await textOf(files.pidFile)) !== '') return
    if (!running) throw new LonghornError('UNREACHABLE', `nbdfuse ended: ${(await logTail(files.log)) || 'it said nothing'}`)
  }
  throw new LonghornError('TIMEOUT', `nbdfuse did not mount within ${timeoutMs} ms: ${(await logTail(files.log)) || 'it said nothing'}`)
}

/** The processes that show a volume at this path, whoever started them. */
export function findNbdfuse(file: string): ProcessId[] {
  return findProcesses(NBDFUSE, file)
}

/** The end of what it printed, on one line. */
export async function logTail(log: string): Promise<string> {
  return (await textOf(log)).slice(-LOG_TAIL_CHARS).trim().replace(/\s*\n\s*/g, '; ')
}

async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return ''
    throw error
  }
}
