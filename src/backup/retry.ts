import {setTimeout as delay} from 'node:timers/promises'
import {LonghornError} from '../lib/errors.js'

/** Waits before a request for a block is made again: a store that is started again, or a network that breaks off, costs a minute and not the backup. */
const WAITS_MS = [1000, 5000, 15_000, 30_000]

/** Does something again while the store cannot be reached or is too slow; with `io` also after input and output errors, which reads may get over. An interrupt is told by its reason. */
export async function retried<T>(work: () => Promise<T>, signal?: AbortSignal, {io = false} = {}): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      const wait = WAITS_MS[attempt]
      const final = !(error instanceof LonghornError) || !(error.retryable || (io && error.code === 'LH_IO'))
      if (final || wait === undefined) throw error
      signal?.throwIfAborted()
      await delay(wait, undefined, {signal}).catch(() => signal?.throwIfAborted())
    }
  }
}
