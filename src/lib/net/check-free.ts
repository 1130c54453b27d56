import {errnoOf} from '../errors.js'
import type {Address} from '../address.js'
import {Listener} from './listener.js'
import {closeFd} from './socket-calls.js'

/**
 * Throws CONFLICT when somebody listens at this address, and what else Listener.open() throws. For those who have to know
 * before they do what cannot be undone. A unix socket in a folder that does not exist yet is free.
 */
export async function checkFree(address: Address): Promise<void> {
  try {
    const probe = await Listener.open(address, closeFd)
    await probe.close()
  } catch (error) {
    if (!(address.kind === 'unix' && errnoOf((error as Error).cause) === 'ENOENT')) throw error
  }
}
