import {setTimeout as delay} from 'node:timers/promises'

/** Waits for something that no event announces. Throws after `timeoutMs`, which also a machine that is busy with other things must not reach; `what` is for the message. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await delay(5)
  }
}
