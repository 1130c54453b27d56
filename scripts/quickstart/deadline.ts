import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError} from '../../src/lib/errors.js'

/** What has been told to stop usually does within milliseconds. */
const GRACE_MS = 5000

/**
 * Runs one step. When it has not finished after `seconds`, or `signal` is aborted, the step's own signal is aborted, and
 * its work has a moment to come to an end; longer it is not waited for, as it may hang in the kernel, on a volume that
 * does not answer.
 */
export async function withDeadline<T>(what: string, seconds: number, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  const own = new AbortController()
  const timer = setTimeout(() => own.abort(new LonghornError('TIMEOUT', `"${what}" was not finished after ${seconds} s`)), seconds * 1000)
  const follow = (): void => own.abort(signal.reason)
  signal.addEventListener('abort', follow, {once: true})
  const aborted = new Promise<void>(resolve => {
    own.signal.addEventListener('abort', () => resolve(), {once: true})
  })
  const working = work(own.signal)
  try {
    await Promise.race([working, aborted])
    if (!own.signal.aborted) return await working
    await Promise.race([working.catch(() => undefined), sleep(GRACE_MS)])
    throw own.signal.reason
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', follow)
  }
}
