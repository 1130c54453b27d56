import {closeSync, existsSync, mkdirSync, openSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {errnoOf} from '../../lib/errors.js'
import {tryLockFile} from '../../lib/sys/file-lock.js'

/**
 * One snapshot is hashed at a time on a node, by whatever replica, upstream's included: an flock on the file that upstream uses. `/host` is
 * where the node's files are in a container. Without the rights to have that file every process keeps to itself.
 */
export class HashLock {
  readonly #path: string
  #fd: number | undefined
  #busy = false

  constructor(env: NodeJS.ProcessEnv = process.env) {
    const path = join(env.LONGHORN_CONTROL_PATH || '/var/lib/longhorn', '.lock', 'hash')
    this.#path = existsSync('/host') ? join('/host', path) : path
  }

  /** False when somebody has it. Throws Node's errors. */
  take(): boolean {
    if (this.#busy) return false
    const fd = this.#open()
    if (fd !== undefined && !tryLockFile(fd)) {
      closeSync(fd)
      return false
    }
    this.#fd = fd
    this.#busy = true
    return true
  }

  give(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    this.#busy = false
  }

  /** Whether anybody on this node has it. */
  get taken(): boolean {
    if (!this.take()) return true
    this.give()
    return false
  }

  #open(): number | undefined {
    try {
      mkdirSync(dirname(this.#path), {recursive: true})
      return openSync(this.#path, 'a', 0o600)
    } catch (error) {
      if (['EACCES', 'EPERM', 'EROFS'].includes(errnoOf(error) ?? '')) return undefined
      throw error
    }
  }
}
