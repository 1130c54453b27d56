import {setTimeout as sleep} from 'node:timers/promises'
import {libcFunction} from '../../../lib/sys/libc.js'
import {linkDead, type NbdControl} from './nbd-control.js'

const EVENT_BYTES = 4096
const RETRY_MS = 250

const recv = libcFunction<(fd: number, bytes: Buffer, length: number, flags: number) => number>('int64_t recv(int fd, void *bytes, size_t length, int flags)')

/** Which devices have lost their connection, as the kernel tells. */
export class Losses {
  readonly #indices = new Set<number>()
  #missed = false
  #wake: (() => void) | undefined

  add(index: number): void {
    this.#indices.add(index)
    this.#wake?.()
  }

  /** The kernel had to tell more than we could hear: any device may be among them. */
  miss(): void {
    this.#missed = true
    this.#wake?.()
  }

  /** True when this one may be among them; the next time not any more. */
  take(index: number): boolean {
    const may = this.#indices.delete(index) || this.#missed
    this.#missed = false
    return may
  }

  /** Waits for news, or until `timeoutMs` have passed. */
  async next(timeoutMs: number): Promise<void> {
    if (this.#indices.size > 0 || this.#missed) return
    const done = new AbortController()
    const news = new Promise<void>(resolve => (this.#wake = resolve))
    await Promise.race([news, sleep(timeoutMs, undefined, {signal: done.signal}).catch(() => undefined)])
    done.abort()
    this.#wake = undefined
  }
}

export function watchLosses(control: NbdControl): Losses {
  const {fd} = control.listen()
  const losses = new Losses()
  const bytes = Buffer.alloc(EVENT_BYTES)
  const heard = (error: unknown, length: number): void => {
    if (error !== null || length <= 0) {
      losses.miss()
      setTimeout(wait, RETRY_MS)
      return
    }
    const index = linkDead(bytes.subarray(0, length))
    if (index !== undefined) losses.add(index)
    wait()
  }
  // A thread of the pool waits in the kernel meanwhile, and this process sleeps.
  const wait = (): void => recv.async(fd, bytes, bytes.length, 0, heard)
  wait()
  return losses
}
