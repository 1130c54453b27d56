// Which processes a quickstart has started, told by a variable in their environment: they have it from their first
// moment, their children inherit it, and no other process on the machine has this value.
import {readdirSync, readFileSync} from 'node:fs'
import {errnoOf} from '../../src/lib/errors.js'
import {identify, programOf, type ProcessId} from '../../src/drivers/attach/process-identity.js'

const VARIABLE = 'LONGHORN_QUICKSTART'

export interface MarkedProcess extends ProcessId {
  readonly parent: number
  /** `node`, `nbdfuse`, … */
  readonly program: string
}

/** From now on, what this process starts can be found by `id`. Settings of the user's own do not reach it. */
export function markChildren(id: string): void {
  for (const name of Object.keys(process.env)) {
    if (name.startsWith('LONGHORN_')) Reflect.deleteProperty(process.env, name)
  }
  process.env[VARIABLE] = id
}

/** Who bears a mark, and since when there can be such processes, in clock ticks since boot. */
export interface Mark {
  readonly id: string
  readonly sinceTicks: number
}

export function findMarked({id, sinceTicks}: Mark): MarkedProcess[] {
  const mark = `${VARIABLE}=${id}`
  const found: MarkedProcess[] = []
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const identity = identify(pid)
    // Older ones are not looked into: the environment of a process that hangs in a page fault cannot be read, but waited for.
    if (identity === undefined || identity.startTicks < sinceTicks || !read(pid, 'environ').split('\0').includes(mark)) continue
    const parent = Number(/^PPid:\s*(\d+)/m.exec(read(pid, 'status'))?.[1] ?? 0)
    found.push({...identity, parent, program: programOf(pid)})
  }
  return found
}

/** Empty when it has gone meanwhile, and when it is not ours to read: then it is not ours at all. */
function read(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8')
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(errnoOf(error) ?? '')) return ''
    throw error
  }
}
