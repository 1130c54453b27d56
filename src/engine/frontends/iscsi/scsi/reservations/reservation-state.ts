/** Types of persistent reservations (SPC-4, 6.15). */
export const TYPE = {
  WRITE_EXCLUSIVE: 0x1,
  EXCLUSIVE_ACCESS: 0x3,
  WRITE_EXCLUSIVE_REGISTRANTS: 0x5,
  EXCLUSIVE_ACCESS_REGISTRANTS: 0x6,
  WRITE_EXCLUSIVE_ALL: 0x7,
  EXCLUSIVE_ACCESS_ALL: 0x8,
} as const

interface TypeFacts {
  /** Others may read. */
  readonly readable: boolean
  /** Whoever is registered counts as a friend … */
  readonly registrants: boolean
  /** … and as a holder. */
  readonly all: boolean
}

/** What each type means; a type that is not here does not exist. */
export const TYPES: ReadonlyMap<number, TypeFacts> = new Map([
  [TYPE.WRITE_EXCLUSIVE, {readable: true, registrants: false, all: false}],
  [TYPE.EXCLUSIVE_ACCESS, {readable: false, registrants: false, all: false}],
  [TYPE.WRITE_EXCLUSIVE_REGISTRANTS, {readable: true, registrants: true, all: false}],
  [TYPE.EXCLUSIVE_ACCESS_REGISTRANTS, {readable: false, registrants: true, all: false}],
  [TYPE.WRITE_EXCLUSIVE_ALL, {readable: true, registrants: true, all: true}],
  [TYPE.EXCLUSIVE_ACCESS_ALL, {readable: false, registrants: true, all: true}],
])

/** An initiator port that has registered. */
export interface Registration {
  /** `iqn.…,i,0x00023d000001` */
  readonly port: string
  /** 16 hex digits; never all zeros. */
  readonly key: string
}

export interface Reservation {
  readonly type: number
  /** The port that holds it; with the types for all registrants the one that made it, which means nothing more. */
  readonly holder: string
}

/** All there is to know of persistent reservations. Never changed: replaced. */
export interface ReservationState {
  /** Counts changes of registrations. */
  readonly generation: number
  readonly registrations: readonly Registration[]
  readonly reservation: Reservation | undefined
  /** APTPL: to be kept over a restart. */
  readonly kept: boolean
}

export const NO_RESERVATIONS: ReservationState = {generation: 0, registrations: [], reservation: undefined, kept: false}

export const NO_KEY = '0000000000000000'

export function registrationOf(state: ReservationState, port: string): Registration | undefined {
  return state.registrations.find(registration => registration.port === port)
}

export function isHolder({reservation, registrations}: ReservationState, port: string): boolean {
  if (reservation === undefined) return false
  if (TYPES.get(reservation.type)!.all) return registrations.some(registration => registration.port === port)
  return reservation.holder === port
}
