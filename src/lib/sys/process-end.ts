import {readFileSync} from 'node:fs'
import {setTimeout as sleep} from 'node:timers/promises'
import {errnoOf} from '../errors.js'

const POLL_MS = 5

/** False when a process has ended, whether its parent has noticed or not. True for 0, which is what a process of another PID namespace looks like. */
export function isProcessRunning(pid: number): boolean {
  if (pid === 0) return true
  try {
    // PID (NAME) STATE …; a name may contain anything.
    const state = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)?.[0]
    return state !== 'Z' && state !== 'X'
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return false
    throw error
  }
}

/** Waits until a process has ended; false when it has not after `timeoutMs`. Of one that cannot be seen from here it is believed at once. */
export async function processEnded(pid: number, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (pid !== 0 && isProcessRunning(pid)) {
    if (performance.now() > deadline) return false
    await sleep(POLL_MS)
  }
  return true
}
