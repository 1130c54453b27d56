import {setTimeout as delay} from 'node:timers/promises'

/** Between two looks: at first, and when it has taken a second already; somebody has to answer each of them. */
const FIRST_MS = 5
const MOST_MS = 25

/** Waits for something that no event announces. Throws after `timeoutMs`, which also a machine that is busy with other things must not reach; `what` is for the message. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, timeoutMs = 60_000): Promise<void> {
  const begun = performance.now()
  while (!(await condition())) {
    const elapsed = performance.now() - begun
    if (elapsed > timeoutMs) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await delay(Math.min(FIRST_MS + elapsed / 50, MOST_MS))
  }
}
