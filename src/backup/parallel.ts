import {setMaxListeners} from 'node:events'

/** What one piece of work may listen with at once: a request, its wait for another attempt. */
const LISTENERS_EACH = 4

/**
 * Calls `work` for every item, at most `limit` at a time, and waits for all of them. After the first failure nothing more is begun, what is running
 * is told through its signal, and when that has ended the failure is thrown.
 */
export async function inParallel<T>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number,
  work: (item: T, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const stop = new AbortController()
  const stopped = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal])
  // Else Node takes more than ten for a leak, and writes that to stderr.
  setMaxListeners(LISTENERS_EACH * limit + 10, stopped)
  const source = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]()
  let failure: {readonly error: unknown} | undefined
  // An async generator answers overlapping calls of next() one after the other.
  const worker = async (): Promise<void> => {
    try {
      for (;;) {
        stopped.throwIfAborted()
        const next = await source.next()
        if (next.done === true) return
        stopped.throwIfAborted()
        await work(next.value, stopped)
      }
    } catch (error) {
      failure ??= {error}
      stop.abort(error)
    }
  }
  await Promise.all(Array.from({length: limit}, worker))
  if (failure === undefined) return
  await source.return?.()
  throw failure.error
}
