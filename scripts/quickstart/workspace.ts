// The directory of a quickstart, and the record in it from which the next one can tell what this one has started, also
// when it was killed.
//
//     run.json       the record
//     replica-N/     the replicas' directories
//     logs/          what the processes print
//     mnt/           where the file system is mounted
//     *.sock         the engines' sockets
import {randomUUID} from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import {join} from 'node:path'
import {identify} from '../../src/drivers/attach/process-identity.js'
import {errnoOf, LonghornError, messageOf} from '../../src/lib/errors.js'
import {tryLockFile} from '../../src/lib/sys/file-lock.js'

const PROGRAM = 'longhorn quickstart'
const RECORD = 'run.json'
const LOGS = 'logs'
const MOUNT_POINT = 'mnt'
/** What a quickstart puts into its directory, and all that is ever removed from it. */
const OURS = /^(run\.json(\.tmp)?|replica-\d|logs|mnt|[\w-]+\.sock|[\w-]+\.tmp)$/
/** A socket's path has at most 107 bytes; the longest name of ours is 14. */
const MAX_DIRECTORY_BYTES = 90

export type Role = 'replica' | 'engine'

export interface DaemonRecord {
  readonly role: Role
  readonly pid: number
  /** It has been asked to stop. Asked twice, it would stop at once and leave its device behind. */
  readonly stopping: boolean
}

export interface RunRecord {
  readonly program: typeof PROGRAM
  /** Random. Every process that this run starts has it in its environment, which is how they are found again. */
  readonly id: string
  /** When this run began, in clock ticks since boot. */
  readonly sinceTicks: number
  /** Random, too, so that a device of this name can be nobody else's. */
  readonly volume: string
  /** The user wants it to go on running. */
  readonly kept: boolean
  /** A block device may have been made. */
  readonly blockDevice: boolean
  readonly daemons: readonly DaemonRecord[]
}

/** Its owner has the directory for itself until close(), or until its process ends in whatever way. */
export class Workspace {
  readonly #fd: number
  #record: RunRecord | undefined

  private constructor(
    /** Absolute, without symbolic links: as the kernel's table of mounts shows it. */
    readonly directory: string,
    fd: number,
  ) {
    this.#fd = fd
    this.#record = readRecord(join(directory, RECORD))
  }

  /** Makes the directory if it is not there. Throws BUSY when another quickstart has it, USAGE when it is somebody's. */
  static open(wanted: string): Workspace {
    if (Buffer.byteLength(wanted) > MAX_DIRECTORY_BYTES) {
      throw new LonghornError('USAGE', `${wanted}: this path is too long for the sockets in it, choose another --directory`)
    }
    for (;;) {
      const fd = openDirectory(wanted)
      try {
        if (!tryLockFile(fd)) throw new LonghornError('BUSY', `another quickstart is running in ${wanted}: end it with Ctrl-C, or choose another --directory`)
        // Whoever had the lock before may have removed what we have just opened.
        if (!isStillThere(wanted, fd)) {
          closeSync(fd)
          continue
        }
        const directory = realpathSync(wanted)
        const strangers = readdirSync(directory).filter(name => !OURS.test(name))
        if (strangers.length > 0) throw new LonghornError('USAGE', `${directory} holds other files (${strangers[0]}): choose another --directory`)
        return new Workspace(directory, fd)
      } catch (error) {
        closeSync(fd)
        throw error
      }
    }
  }

  /** What the last run has left; undefined when there is nothing. */
  get record(): RunRecord | undefined {
    return this.#record
  }

  get logs(): string {
    return join(this.directory, LOGS)
  }

  get mountPoint(): string {
    return join(this.directory, MOUNT_POINT)
  }

  path(name: string): string {
    return join(this.directory, name)
  }

  /** The record comes before anything else, so that whatever exists later can be found. */
  begin(): RunRecord {
    this.removeFiles()
    const id = randomUUID()
    const record: RunRecord = {
      program: PROGRAM,
      id,
      sinceTicks: identify(process.pid)?.startTicks ?? 0,
      volume: `quickstart-${id.slice(0, 6)}`,
      kept: false,
      blockDevice: false,
      daemons: [],
    }
    this.#write(record)
    mkdirSync(this.logs)
    mkdirSync(this.mountPoint)
    return record
  }

  note(more: Partial<Pick<RunRecord, 'kept' | 'blockDevice'>>): void {
    this.#write({...this.#begun, ...more})
  }

  noteDaemon(role: Role, pid: number): void {
    this.#write({...this.#begun, daemons: [...this.#begun.daemons, {role, pid, stopping: false}]})
  }

  noteStopping(pid: number): void {
    this.#write({...this.#begun, daemons: this.#begun.daemons.map(one => (one.pid === pid ? {...one, stopping: true} : one))})
  }

  /** Removes what is ours; with `keepLogs` all but the logs. Nothing may be mounted here any more. */
  removeFiles({keepLogs = false} = {}): void {
    for (const name of readdirSync(this.directory)) {
      if (!OURS.test(name) || (keepLogs && name === LOGS) || name === RECORD) continue
      // Never through a mount: if there still is one, this says so.
      if (name === MOUNT_POINT) rmdirSync(join(this.directory, name))
      else rmSync(join(this.directory, name), {recursive: true, force: true})
    }
    // The record goes last: until then a killed run can be cleaned up.
    rmSync(join(this.directory, RECORD), {force: true})
    this.#record = undefined
  }

  /** Gives the directory back, and removes it when it is empty. */
  close(): void {
    try {
      rmdirSync(this.directory)
    } catch (error) {
      if (!['ENOTEMPTY', 'EEXIST', 'ENOENT', 'EACCES', 'EPERM', 'EBUSY'].includes(errnoOf(error) ?? '')) throw error
    } finally {
      closeSync(this.#fd)
    }
  }

  get #begun(): RunRecord {
    if (this.#record === undefined) throw new Error('a note without a run')
    return this.#record
  }

  #write(record: RunRecord): void {
    const path = join(this.directory, RECORD)
    writeFileSync(`${path}.tmp`, `${JSON.stringify(record, undefined, 2)}\n`, {mode: 0o600})
    renameSync(`${path}.tmp`, path)
    this.#record = record
  }
}

function openDirectory(path: string): number {
  try {
    mkdirSync(path, {mode: 0o700})
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw new LonghornError('USAGE', `cannot make the directory ${path}: ${messageOf(error)}`, {}, {cause: error})
  }
  let fd: number
  try {
    // In /tmp anybody could have put a link here that leads elsewhere.
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  } catch (error) {
    throw new LonghornError('USAGE', `cannot use ${path}: ${messageOf(error)}`, {}, {cause: error})
  }
  const {uid} = fstatSync(fd)
  if (uid === process.getuid?.()) return fd
  closeSync(fd)
  throw new LonghornError('USAGE', `${path} belongs to another user: choose another --directory`)
}

function isStillThere(path: string, fd: number): boolean {
  try {
    return statSync(path).ino === fstatSync(fd).ino
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false
    throw error
  }
}

function readRecord(path: string): RunRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(path, 'utf8')) as Partial<RunRecord> | null
    // Written in one step by this program only; another version of it is all that has to be told apart.
    return record?.program === PROGRAM && typeof record.id === 'string' && typeof record.sinceTicks === 'number' && Array.isArray(record.daemons) ? (record as RunRecord) : undefined
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
}
