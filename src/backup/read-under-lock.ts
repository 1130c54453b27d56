import type {StoreLock} from './store-lock.js'

/** What a reader asks before it goes on. */
export interface ReadGuard {
  /** Throws BUSY when the lock does not count any more; see StoreLock.checkHeld(). */
  checkHeld(): void
}

/**
 * Reads from a store under a lock that keeps others from removing what is read, and begins while the lock is being taken, which is two seconds of waiting: reading
 * harms nobody, and every block is checked. Nothing may be made of what was read before this resolves, which is when the lock was had as well.
 *
 * Throws what take() does, also where reading failed first: what is missing, somebody may just be removing.
 */
export async function readUnderLock<T>(take: (signal: AbortSignal) => Promise<StoreLock>, read: (guard: ReadGuard, signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
  const refused = new AbortController()
  const stop = signal === undefined ? refused.signal : AbortSignal.any([signal, refused.signal])
  let held: StoreLock | undefined
  const taking = take(stop).then(
    lock => (held = lock),
    (error: unknown) => {
      refused.abort(error)
      throw error
    },
  )
  try {
    const [lock, reading] = await Promise.allSettled([taking, read({checkHeld: () => held?.checkHeld()}, stop)])
    if (lock.status === 'rejected') throw lock.reason
    if (reading.status === 'rejected') throw reading.reason
    return reading.value
  } finally {
    await held?.close()
  }
}
