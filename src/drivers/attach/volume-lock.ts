import {closeSync, constants, mkdirSync, openSync, rmSync} from 'node:fs'
import {dirname} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {errnoOf, LonghornError} from '../../lib/errors.js'
import {isFileAt, tryLockFile} from '../../lib/sys/file-lock.js'

const POLL_MS = 50

/**
 * The right to change one attachment: an flock(2) on a file, which the kernel takes back when this process dies.
 * The file goes away with the lock, so a lock only counts when the file is still the one at the path.
 */
export class VolumeLock implements AsyncDisposable {
  readonly #path: string
  #fd: number

  private constructor(path: string, fd: number) {
    this.#path = path
    this.#fd = fd
  }

  /** Waits for it. Throws BUSY after `timeoutMs`, or the signal's reason. */
  static async take(path: string, timeoutMs: number, signal?: AbortSignal): Promise<VolumeLock> {
    mkdirSync(dirname(path), {recursive: true, mode: 0o700})
    for (const deadline = performance.now() + timeoutMs; ; ) {
      signal?.throwIfAborted()
      const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
      if (tryLockFile(fd) && isFileAt(path, fd)) return new VolumeLock(path, fd)
      closeSync(fd)
      if (performance.now() > deadline) {
        throw new LonghornError('BUSY', `another attach or detach of this volume is under way (it holds ${path})`, {path})
      }
      await sleep(POLL_MS, undefined, signal === undefined ? {} : {signal}).catch(() => undefined)
    }
  }

  /** True when somebody holds it at this moment. */
  static isHeld(path: string): boolean {
    try {
      const fd = openSync(path, constants.O_RDWR)
      const free = tryLockFile(fd)
      closeSync(fd)
      return !free
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false
      throw error
    }
  }

  /** Safe twice. */
  close(): void {
    if (this.#fd < 0) return
    // While it is still locked: after that the file may be someone else's.
    rmSync(this.#path, {force: true})
    closeSync(this.#fd)
    this.#fd = -1
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }
}
