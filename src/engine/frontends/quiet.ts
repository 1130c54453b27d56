import {setTimeout as sleep} from 'node:timers/promises'
import {LonghornError} from '../../lib/errors.js'

const POLL_MS = 1

/** Resolves when `isQuiet`. Throws TIMEOUT when it is not before `deadline` (performance.now()). */
export async function waitQuiet(what: string, deadline: number, isQuiet: () => boolean): Promise<void> {
  while (!isQuiet()) {
    if (performance.now() > deadline) throw new LonghornError('TIMEOUT', `${what}: requests are under way that do not end`)
    await sleep(POLL_MS)
  }
}
