import {closeSync, constants, fstatSync, openSync, readFileSync} from 'node:fs'
import {errnoOf, LonghornError} from '../lib/errors.js'
import {tryLockFile} from '../lib/sys/file-lock.js'

/**
 * The exclusive right to use a replica directory: an flock(2) on the directory itself, so that no file is left behind
 * and the kernel takes it back when the process dies. Upstream's replica takes no lock and does not see this one.
 */
export class DirectoryLock {
  #fd: number

  /** Throws NOT_FOUND when there is no such directory, and BUSY when another process (or this one) holds it. */
  constructor(directory: string) {
    this.#fd = openDirectory(directory)
    try {
      if (tryLockFile(this.#fd)) return
      const pid = holder(this.#fd)
      const who = pid === undefined ? 'another process' : pid === process.pid ? 'this process' : `process ${pid}`
      throw new LonghornError('BUSY', `${directory} is in use by ${who}: stop it, or wait until it has closed the replica`, {
        directory,
        pid,
      })
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** Gives the directory back. Safe twice. */
  close(): void {
    if (this.#fd < 0) return
    closeSync(this.#fd)
    this.#fd = -1
  }
}

function openDirectory(directory: string): number {
  try {
    return openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    const code = errnoOf(error)
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error
    const what = code === 'ENOENT' ? 'does not exist' : 'is not a directory'
    throw new LonghornError('NOT_FOUND', `replica directory ${directory} ${what}`, {directory}, {cause: error})
  }
}

/** The process that holds the lock, from /proc/locks: "1: FLOCK  ADVISORY  WRITE 4711 fe:00:131074 0 EOF". */
function holder(fd: number): number | undefined {
  try {
    const {ino} = fstatSync(fd, {bigint: true})
    for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
      const [, kind, , , pid, file] = line.trim().split(/\s+/)
      // Only the inode number is compared: overlay and btrfs show another device number here than stat does.
      if (kind === 'FLOCK' && file?.split(':')[2] === `${ino}` && Number(pid) > 0) return Number(pid)
    }
  } catch {
    // A nicety. In a container without /proc/locks the message just does not name the process.
  }
  return undefined
}
