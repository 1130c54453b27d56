import {ACCESS} from '../command-set.js'
import {isHolder, registrationOf, TYPES, type ReservationState} from './reservation-state.js'

/** What a persistent reservation keeps an initiator port from (SPC-4, table 66 and its like): bits of ACCESS. */
export function excludedFrom(state: ReservationState, port: string): number {
  const {reservation} = state
  if (reservation === undefined || isHolder(state, port)) return 0
  const {readable, registrants} = TYPES.get(reservation.type)!
  if (registrants && registrationOf(state, port) !== undefined) return 0
  return readable ? ACCESS.WRITE : ACCESS.READ | ACCESS.WRITE
}

/** How RESERVE and RELEASE of SPC-2 are answered while persistent reservations are in use. */
export type OldStyle = 'as ever' | 'good, and nothing happens' | 'conflict'

/** CRH, the compatible reservation handling of SPC-3: those who may do everything are told that they have it. */
export function oldStyleRule(state: ReservationState, port: string): OldStyle {
  const {reservation, registrations} = state
  if (isHolder(state, port)) return 'good, and nothing happens'
  if (registrationOf(state, port) !== undefined && reservation !== undefined && TYPES.get(reservation.type)!.registrants) {
    return 'good, and nothing happens'
  }
  return registrations.length > 0 ? 'conflict' : 'as ever'
}
