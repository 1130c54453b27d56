// What PERSISTENT RESERVE OUT does, without doing it: from a state and a request to the next state, and to who has to be
// told what. Rules are those of SPC-4, 5.13. Throws CheckCondition and ReservationConflict.
import {CheckCondition, invalidField, invalidParameter, ReservationConflict} from '../check-condition.js'
import {CONDITION, type Condition} from '../sense.js'
import {isHolder, NO_KEY, registrationOf, TYPES, type Registration, type Reservation, type ReservationState} from './reservation-state.js'

export const ACTION = {
  REGISTER: 0x00,
  RESERVE: 0x01,
  RELEASE: 0x02,
  CLEAR: 0x03,
  PREEMPT: 0x04,
  PREEMPT_AND_ABORT: 0x05,
  REGISTER_AND_IGNORE: 0x06,
} as const

/** The most initiator ports that may register. */
export const MOST_REGISTRATIONS = 256

/** Offset of SERVICE ACTION RESERVATION KEY in the parameter list. */
const SERVICE_KEY_AT = 8
/** SCOPE of a logical unit, and where scope and type are in the CDB. */
const UNIT_SCOPE = 0
const SCOPE_AND_TYPE_AT = 2

export interface Request {
  readonly action: number
  readonly port: string
  readonly key: string
  readonly serviceKey: string
  readonly scope: number
  readonly type: number
  /** APTPL. */
  readonly keep: boolean
}

export interface Plan {
  readonly state: ReservationState
  /** By initiator port. */
  readonly tell: ReadonlyMap<string, Condition>
  /** PREEMPT AND ABORT: ports whose commands are to be aborted. */
  readonly abort: readonly string[]
}

export function planReservation(state: ReservationState, request: Request): Plan {
  switch (request.action) {
    case ACTION.REGISTER:
      checkKey(state, request, true)
      return register(state, request)
    case ACTION.REGISTER_AND_IGNORE:
      return register(state, request)
    case ACTION.RESERVE:
      return reserve(state, request)
    case ACTION.RELEASE:
      return release(state, request)
    case ACTION.CLEAR:
      checkKey(state, request)
      return changed({...next(state), registrations: [], reservation: undefined}, all(others(state, request.port), CONDITION.RESERVATIONS_PREEMPTED))
    default:
      return preempt(state, request)
  }
}

function register(state: ReservationState, {port, serviceKey, keep}: Request): Plan {
  const registered = registrationOf(state, port) !== undefined
  if (serviceKey === NO_KEY) return registered ? unregister(state, port, keep) : changed(state)
  if (!registered && state.registrations.length >= MOST_REGISTRATIONS) {
    throw new CheckCondition(CONDITION.INSUFFICIENT_REGISTRATION_RESOURCES)
  }
  const mine = {port, key: serviceKey}
  const registrations = registered
    ? state.registrations.map(other => (other.port === port ? mine : other))
    : [...state.registrations, mine]
  return changed({...next(state), registrations, kept: keep})
}

function unregister(state: ReservationState, port: string, keep: boolean): Plan {
  const registrations = others(state, port)
  const {reservation} = state
  const facts = reservation && TYPES.get(reservation.type)!
  const released = facts !== undefined && (facts.all ? registrations.length === 0 : isHolder(state, port))
  const tell = released && facts.registrants ? all(registrations, CONDITION.RESERVATIONS_RELEASED) : undefined
  return changed({...next(state), registrations, reservation: released ? undefined : reservation, kept: keep}, tell)
}

function reserve(state: ReservationState, request: Request): Plan {
  checkKey(state, request)
  const wanted = reservationOf(request)
  const {reservation} = state
  if (reservation === undefined) return changed({...state, reservation: wanted})
  if (isHolder(state, request.port) && reservation.type === request.type) return changed(state)
  throw new ReservationConflict()
}

function release(state: ReservationState, request: Request): Plan {
  checkKey(state, request)
  const {reservation} = state
  if (reservation === undefined || !isHolder(state, request.port)) return changed(state)
  if (reservation.type !== request.type || request.scope !== UNIT_SCOPE) throw new CheckCondition(CONDITION.INVALID_RELEASE)
  const tell = TYPES.get(reservation.type)!.registrants ? all(others(state, request.port), CONDITION.RESERVATIONS_RELEASED) : undefined
  return changed({...state, reservation: undefined}, tell)
}

function preempt(state: ReservationState, request: Request): Plan {
  checkKey(state, request)
  const {serviceKey, port} = request
  const {reservation} = state
  const forAll = reservation !== undefined && TYPES.get(reservation.type)!.all
  if (forAll && serviceKey === NO_KEY) return preemptReservation(state, request, others(state, port))
  if (serviceKey === NO_KEY) throw invalidParameter(SERVICE_KEY_AT)
  const victims = state.registrations.filter(({key}) => key === serviceKey)
  if (victims.length === 0) throw new ReservationConflict()
  const holdsIt = !forAll && reservation !== undefined && victims.some(victim => victim.port === reservation.holder)
  return holdsIt ? preemptReservation(state, request, victims) : preemptRegistrations(state, request, victims)
}

/** The reservation changes hands. */
function preemptReservation(state: ReservationState, request: Request, victims: readonly Registration[]): Plan {
  const {port} = request
  const gone = victims.filter(victim => victim.port !== port)
  const wanted = reservationOf(request)
  const registrations = state.registrations.filter(registration => !gone.includes(registration))
  const tell = new Map<string, Condition>()
  if (wanted.type !== state.reservation!.type) {
    for (const {port: other} of registrations) if (other !== port) tell.set(other, CONDITION.RESERVATIONS_RELEASED)
  }
  for (const victim of gone) tell.set(victim.port, CONDITION.REGISTRATIONS_PREEMPTED)
  return {state: {...next(state), registrations, reservation: wanted}, tell, abort: aborted(request, victims)}
}

/** Registrations go; scope and type of the request mean nothing. */
function preemptRegistrations(state: ReservationState, request: Request, victims: readonly Registration[]): Plan {
  const registrations = state.registrations.filter(registration => !victims.includes(registration))
  const tell = all(victims.filter(({port}) => port !== request.port), CONDITION.REGISTRATIONS_PREEMPTED)
  // Only a reservation for all registrants is left here without a holder.
  const reservation = registrations.length === 0 ? undefined : state.reservation
  return {state: {...next(state), registrations, reservation}, tell, abort: aborted(request, victims)}
}

/** The commands of all whose registrations match are aborted, those of the sender as well. */
function aborted({action}: Request, victims: readonly Registration[]): string[] {
  return action === ACTION.PREEMPT_AND_ABORT ? victims.map(({port}) => port) : []
}

/** The initiator must be registered, with the key that it names. `orNeither`: it may also have none and name none. */
function checkKey(state: ReservationState, {port, key}: Request, orNeither = false): void {
  const registered = registrationOf(state, port)?.key
  if (registered === key || (orNeither && registered === undefined && key === NO_KEY)) return
  throw new ReservationConflict()
}

function reservationOf({scope, type, port}: Request): Reservation {
  if (scope !== UNIT_SCOPE) throw invalidField(SCOPE_AND_TYPE_AT, 7)
  if (!TYPES.has(type)) throw invalidField(SCOPE_AND_TYPE_AT, 3)
  return {type, holder: port}
}

function others({registrations}: ReservationState, port: string): Registration[] {
  return registrations.filter(registration => registration.port !== port)
}

function next(state: ReservationState): ReservationState {
  return {...state, generation: (state.generation + 1) >>> 0}
}

function changed(state: ReservationState, tell: ReadonlyMap<string, Condition> = new Map()): Plan {
  return {state, tell, abort: []}
}

function all(registrations: readonly Registration[], condition: Condition): Map<string, Condition> {
  return new Map(registrations.map(({port}) => [port, condition]))
}
