// What two engines say to each other while one takes the place of the other, over a unix socket:
//
//     old                                            new
//      | connects                                     | waits at its socket
//      | state, with all descriptors  ------------->  |  prepares; touches nothing
//      |                              <-------------  | ready
//      | yours                        ------------->  |  starts, and reads nothing yet
//      |                              <-------------  | took
//      ends                                           serves
//
// Whose it is: the old one's until the new one has sent "took"; it goes on when the channel ends before that. It gives up by itself
// (abort) only before "yours". The new one sends "took" before it reads or sends anything else. When the channel ends without an
// abort, the old one is dead, and the new one takes what it has.
import {LonghornError, type ErrorKind} from '../../lib/errors.js'
import type {EngineState} from './engine-state.js'

export type FromOld =
  | {readonly type: 'state'; readonly state: EngineState}
  /** It goes on. */
  | {readonly type: 'abort'; readonly kind: ErrorKind; readonly text: string}
  | {readonly type: 'yours'}

export type FromNew = {readonly type: 'ready'} | {readonly type: 'took'}

/** How long the new one may take to prepare. */
export const READY_MS = 10_000
/** How long the old one may take to come to a stand-still. */
export const STATE_MS = 40_000

/** Checks that a message is of this type. Throws PROTOCOL. */
export function expectType<T extends {readonly type: string}, Type extends T['type']>(message: T, type: Type): Extract<T, {readonly type: Type}> {
  if (message.type === type) return message as Extract<T, {readonly type: Type}>
  throw new LonghornError('PROTOCOL', `the other engine says ${JSON.stringify(String(message.type).slice(0, 40))} instead of "${type}"`)
}
