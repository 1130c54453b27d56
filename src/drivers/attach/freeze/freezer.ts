import {spawn, type ChildProcess} from 'node:child_process'
import {existsSync, fstatSync} from 'node:fs'
import {readFile, rename, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {createInterface} from 'node:readline'
import {fileURLToPath} from 'node:url'
import {errnoOf, LonghornError, messageOf} from '../../../lib/errors.js'
import {isObject} from '../attachment-record.js'
import {deviceNumber, sameDevice} from '../block-node.js'
import {readMounts} from '../mount-table.js'
import {runCommand} from '../run-command.js'
import type {MountedFileSystem} from './file-systems-on.js'

const PROGRAM = fileURLToPath(new URL('freezer-main.js', import.meta.url))
/** In the directory of an attachment: what may be frozen. Removed when it is thawed. */
const RECORD = 'frozen.json'
/** How long a file system may take to write out what it has in memory. */
const FREEZE_MS = 60_000
/** After this it is thawed, whatever is going on. */
const LIMIT_MS = 15_000
const THAW_MS = 30_000

/** File systems that nobody can change. */
export interface Frozen {
  readonly mountPoints: readonly string[]
  /** Thaws them. Throws TIMEOUT when they had been thawed before, as it took too long. Safe twice. */
  thaw(): Promise<void>
}

/**
 * Freezes all of them. UNSUPPORTED for one that cannot be frozen, or that this process writes to itself; BUSY for one that somebody
 * has frozen; TIMEOUT. Nothing is frozen then. `directory` is the attachment's.
 */
export async function freeze(directory: string, mounted: readonly MountedFileSystem[]): Promise<Frozen> {
  const own = mounted.find(device => [1, 2].some(fd => sameDevice(deviceOf(fd), device)))
  if (own !== undefined) {
    throw new LonghornError('UNSUPPORTED', `the file system at ${own.path} cannot be frozen: this process writes its log there and would wait for itself`)
  }
  const paths = mounted.map(({path}) => path)
  await writeRecord(directory, mounted)
  const freezer = new Freezer(paths)
  try {
    await freezer.frozen()
  } catch (error) {
    freezer.let()
    // One that is still at it thaws when it is done; who comes after it finds the record.
    if (freezer.hasEnded) await forget(directory)
    throw error
  }
  let thawed: Promise<void> | undefined
  return {mountPoints: paths, thaw: () => (thawed ??= freezer.thaw().finally(() => forget(directory)))}
}

/** Thaws what a process that was killed may have left frozen. Returns what could not be thawed, one line each; it is tried again next time. */
export async function thawLeftOver(directory: string): Promise<string[]> {
  const recorded = await readRecord(directory)
  if (recorded === undefined) return []
  const mounts = await readMounts()
  const problems: string[] = []
  for (const one of recorded) {
    // Only what is still mounted there: the number of a device that is gone may be somebody else's. In /proc nobody else's name can be.
    const isThere = one.path.startsWith('/proc/') ? existsSync(one.path) : mounts.some(mount => sameDevice(mount, one) && mount.mountPoint === one.path)
    if (!isThere) continue
    try {
      await runCommand(process.execPath, [PROGRAM, 'thaw', one.path], {timeoutMs: THAW_MS})
    } catch (error) {
      problems.push(`the file system at ${one.path} may be frozen and could not be thawed: ${messageOf(error)}`)
    }
  }
  if (problems.length === 0) await forget(directory)
  return problems
}

class Freezer {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>
  #ended = false

  constructor(readonly paths: readonly string[]) {
    // In a session of its own: what ends the engine must not end it.
    this.#child = spawn(process.execPath, [PROGRAM, 'freeze', `${LIMIT_MS}`, ...paths], {detached: true, cwd: '/', stdio: ['pipe', 'pipe', 'ignore']})
    this.#child.once('close', () => (this.#ended = true)).once('error', () => (this.#ended = true))
    this.#child.stdin!.on('error', () => undefined)
    this.#lines = createInterface({input: this.#child.stdout!})[Symbol.asyncIterator]()
  }

  get hasEnded(): boolean {
    return this.#ended
  }

  async frozen(): Promise<void> {
    const answer = await this.#next(FREEZE_MS)
    if (answer['state'] === 'frozen') return
    this.#ended = true
    const {path, code, text} = answer
    if (code === 'EOPNOTSUPP' || code === 'ENOTTY') throw new LonghornError('UNSUPPORTED', `the file system at ${String(path)} cannot be frozen: it does not know how`)
    if (code === 'EBUSY') throw new LonghornError('BUSY', `the file system at ${String(path)} is frozen already; thaw it first (fsfreeze --unfreeze)`)
    throw new LonghornError('IO', `the file system at ${String(path)} cannot be frozen: ${String(text)}`)
  }

  /** Lets it thaw, without waiting. */
  let(): void {
    this.#child.stdin!.end()
    this.#child.unref()
  }

  async thaw(): Promise<void> {
    this.#child.stdin!.end()
    const {state} = await this.#next(THAW_MS)
    if (state !== 'thawed') throw new LonghornError('TIMEOUT', `${this.paths.join(', ')} had to be thawed after ${LIMIT_MS} ms`)
  }

  async #next(timeoutMs: number): Promise<Record<string, unknown>> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new LonghornError('TIMEOUT', `${this.paths.join(', ')}: freezing or thawing took more than ${timeoutMs} ms`)), timeoutMs)
    })
    try {
      const line = await Promise.race([this.#lines.next() as Promise<IteratorResult<string, undefined>>, late])
      if (line.done === true) {
        this.#ended = true
        throw new LonghornError('IO', `${this.paths.join(', ')}: the process that freezes has ended; its mount point cannot be opened, or it was killed`)
      }
      const answer: unknown = JSON.parse(line.value)
      if (isObject(answer)) return answer
      throw new Error('the freezer says something else')
    } finally {
      clearTimeout(timer)
    }
  }
}

function deviceOf(fd: number): {major: number; minor: number} {
  try {
    return deviceNumber(fstatSync(fd).dev)
  } catch (error) {
    if (errnoOf(error) === 'EBADF') return {major: -1, minor: -1}
    throw error
  }
}

interface Recorded {
  readonly path: string
  readonly major: number
  readonly minor: number
}

async function writeRecord(directory: string, mounted: readonly Recorded[]): Promise<void> {
  const path = join(directory, RECORD)
  await writeFile(`${path}.tmp`, `${JSON.stringify(mounted.map(({path: at, major, minor}) => ({path: at, major, minor})))}\n`, {mode: 0o600})
  await rename(`${path}.tmp`, path)
}

async function readRecord(directory: string): Promise<Recorded[] | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(join(directory, RECORD), 'utf8'))
    if (!Array.isArray(value)) return []
    return value.filter((one): one is Recorded => isObject(one) && typeof one['path'] === 'string' && Number.isInteger(one['major']) && Number.isInteger(one['minor']))
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined
    if (error instanceof SyntaxError) return []
    throw error
  }
}

async function forget(directory: string): Promise<void> {
  await rm(join(directory, RECORD), {force: true})
}
