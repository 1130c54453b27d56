// Attaching and detaching by processes that die after each of their steps: the next attempt has to clean up.
import type {Endpoint} from '../../src/drivers/attach/attach-way.js'
import type {ChildOrder} from '../drivers/attach/support/attach-child.js'
import type {Guest} from './guest.js'
import {NODE_IN_GUEST, PROGRAM_IN_GUEST} from './program-image.js'

const CHILD = `${PROGRAM_IN_GUEST}/dist/test/drivers/attach/support/attach-child.js`
const STATE = '/tmp/steps/run'
const DEVICES = '/tmp/steps/dev'
const CHILD_MS = 240_000
const KILLED = 137
/** Of an attach: directory, record, what the way makes, device node. */
const LEAST_STEPS = 5

/**
 * Kills an attach after its first step, its second one, and so on, and attaches again; then the same with the detach. `left` says
 * what there is after a detach. Gives the number of steps.
 */
export async function killAtEachStep(guest: Guest, way: string, volume: string, endpoint: Endpoint, left: () => Promise<readonly string[]>): Promise<string> {
  const order = {way, request: {volume, endpoint, trim: 'may-keep-data' as const}, stateDirectory: STATE, deviceDirectory: DEVICES}
  for (let dieAt = 0; ; dieAt++) {
    const attached = await run(guest, {...order, verb: 'attach', dieAt})
    // In one process: most of the time goes into starting them.
    const detached = await run(guest, {...order, first: 'attach', verb: 'detach', dieAt})
    await run(guest, {...order, verb: 'detach'})
    const remains = await left()
    if (remains.length > 0) throw new Error(`killed at step ${dieAt} (after ${attached.last}; after ${detached.last}), there remains\n${remains.join('\n')}`)
    if (!attached.killed && !detached.killed) {
      if (dieAt < LEAST_STEPS) throw new Error(`only ${dieAt} steps: it was not killed`)
      return `${dieAt} steps`
    }
  }
}

interface Ended {
  readonly killed: boolean
  /** The step before the one at which it was killed. */
  readonly last: string
}

async function run(guest: Guest, order: ChildOrder): Promise<Ended> {
  const {status, stdout, stderr} = await guest.attempt(`${NODE_IN_GUEST} ${CHILD} '${JSON.stringify(order)}'`, CHILD_MS)
  const killed = status === KILLED && order.dieAt !== undefined
  if (status !== 0 && !killed) throw new Error(`${order.verb}, to die at step ${order.dieAt ?? 'none'}: ended with ${status}\n${stderr}`)
  return {killed, last: `${order.verb}: ${stdout.trim().split('\n').at(-1) || 'nothing'}`}
}
