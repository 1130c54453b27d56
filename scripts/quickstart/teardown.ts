// Ends everything that a run has started, from its record and from the system alone: the same code after a run that went
// well, one that failed or was interrupted, and one that was killed and left everything behind.
import {Attacher} from '../../src/drivers/attach/attacher.js'
import {FuseWay} from '../../src/drivers/attach/fuse/fuse-way.js'
import {readMounts} from '../../src/drivers/attach/mount-table.js'
import {NBDFUSE} from '../../src/drivers/attach/fuse/nbdfuse.js'
import {signalProcess, waitForExit, type ProcessId} from '../../src/drivers/attach/process-identity.js'
import {LonghornError, messageOf} from '../../src/lib/errors.js'
import {findMarked, type MarkedProcess} from './marked-processes.js'
import {runTool} from './tool-process.js'
import type {Role, RunRecord, Workspace} from './workspace.js'

const UMOUNT_TIMEOUT_MS = 15_000
const ENGINE_EXIT_MS = 20_000
const REPLICA_EXIT_MS = 10_000
const KILLED_MS = 3000
const DETACH_TIMEOUT_MS = 40_000
const STUCK = 'it hangs'

export interface TeardownOptions {
  /** Leave the logs, for who wants to know what went wrong. */
  readonly keepLogs?: boolean
  /** Throw BUSY, before anything is ended, when somebody else uses the file system; else it is taken from them. */
  readonly polite?: boolean
}

/** Returns what could not be cleaned up, one line each. */
export async function tearDown(workspace: Workspace, {keepLogs = false, polite = false}: TeardownOptions = {}): Promise<string[]> {
  const {record} = workspace
  if (record === undefined) {
    workspace.removeFiles({keepLogs})
    return []
  }
  const problems: string[] = []
  const attempt = async (what: string, work: () => void | Promise<void>): Promise<void> => {
    try {
      await work()
    } catch (error) {
      problems.push(`${what}: ${messageOf(error)}`)
    }
  }
  await attempt('ending tools', () => endTools(record))
  if (polite) await unmountAll(workspace.directory, false)
  else {
    await attempt('unmounting', async () => {
      for (const path of await unmountAll(workspace.directory, true)) problems.push(`${path} was in use, by whoever gets errors there now`)
    })
  }
  await attempt('stopping the engine', () => endDaemons(record, 'engine', ENGINE_EXIT_MS))
  if (record.blockDevice) await attempt('removing the block device', () => detach(record.volume))
  await attempt('stopping the replicas', () => endDaemons(record, 'replica', REPLICA_EXIT_MS))
  await attempt('ending processes', () => killAll(findMarked(record)))
  if ((await mountsBelow(workspace.directory)).length > 0) return [...problems, `${workspace.mountPoint} is still mounted`]
  await attempt('removing files', () => workspace.removeFiles({keepLogs}))
  return problems
}

/** True while any process of the run is there. */
export function isAlive(record: RunRecord): boolean {
  return findMarked(record).length > 0
}

/** Tools that a killed quickstart was running. What a daemon runs is left to the daemon. */
async function endTools(record: RunRecord): Promise<void> {
  const marked = findMarked(record)
  const kept = new Set(record.daemons.map(({pid}) => pid))
  const isTool = ({pid, parent, program}: MarkedProcess): boolean => !kept.has(pid) && !kept.has(parent) && program !== NBDFUSE
  await killAll(marked.filter(isTool))
}

async function endDaemons(record: RunRecord, role: Role, timeoutMs: number): Promise<void> {
  const daemons = new Map(record.daemons.filter(daemon => daemon.role === role).map(daemon => [daemon.pid, daemon]))
  const running = findMarked(record).filter(({pid}) => daemons.has(pid))
  for (const id of running) {
    if (daemons.get(id.pid)?.stopping === false) signalProcess(id, 'SIGTERM')
  }
  const ended = await Promise.all(running.map(id => waitForExit(id, timeoutMs)))
  await killAll(running.filter((_, index) => !ended[index]))
}

async function killAll(processes: readonly ProcessId[]): Promise<void> {
  for (const id of processes) signalProcess(id, 'SIGKILL')
  for (const id of processes) {
    if (!(await waitForExit(id, KILLED_MS))) throw new LonghornError('TIMEOUT', `process ${id.pid} does not end`)
  }
}

async function mountsBelow(directory: string): Promise<string[]> {
  return (await readMounts()).map(({mountPoint}) => mountPoint).filter(path => path.startsWith(`${directory}/`))
}

/** Returns the paths that somebody still used and has lost, which takes `force`. Throws BUSY without. */
async function unmountAll(directory: string, force: boolean): Promise<string[]> {
  const taken: string[] = []
  for (const path of (await mountsBelow(directory)).reverse()) {
    const refusal = await unmount([path])
    if (refusal === undefined) continue
    if (!force) throw new LonghornError('BUSY', `${path} is in use: leave it, end what uses it, and try again (${refusal})`)
    const lasting = await unmount(['--lazy', path])
    if (lasting !== undefined) throw new LonghornError('IO', lasting)
    if (refusal !== STUCK) taken.push(path)
  }
  return taken
}

/** Undefined when it is done, else why not. A volume that does not answer would hold it up for good: that is STUCK. */
async function unmount(args: readonly string[]): Promise<string | undefined> {
  try {
    const {ok, stderr} = await runTool(['umount', ...args], AbortSignal.timeout(UMOUNT_TIMEOUT_MS))
    return ok ? undefined : stderr
  } catch {
    return STUCK
  }
}

/** What an engine that was killed leaves behind. That it cannot be flushed any more does not matter here. */
async function detach(volume: string): Promise<void> {
  await new Attacher([new FuseWay()]).detach(volume, {force: true}, AbortSignal.timeout(DETACH_TIMEOUT_MS))
}
