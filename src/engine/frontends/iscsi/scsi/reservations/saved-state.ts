import {LonghornError} from '../../../../../lib/errors.js'
import {NO_KEY, TYPES, type Registration, type Reservation} from './reservation-state.js'

/** What outlives the engine. */
export interface SavedState {
  readonly registrations: readonly Registration[]
  readonly reservation: Reservation | undefined
  /** A SANITIZE has been started and has not ended. */
  readonly sanitizing: boolean
}

export const NOTHING_SAVED: SavedState = {registrations: [], reservation: undefined, sanitizing: false}

/** Where a disk keeps it: one for each volume. */
export interface ReservationStore {
  /** Undefined when nothing has been saved. Throws LonghornError (CORRUPT, IO): whoever was fenced must not get in because of a bad file. */
  load(): Promise<SavedState | undefined>
  /** When this resolves the state survives a power cut. Never called while another one is under way. */
  save(state: SavedState): Promise<void>
}

const VERSION = 1
const MOST_PORT_CHARS = 512
const KEY = /^[0-9a-f]{16}$/

export function encodeSavedState({registrations, reservation, sanitizing}: SavedState): string {
  return `${JSON.stringify({version: VERSION, registrations, reservation: reservation ?? null, sanitizing}, undefined, 2)}\n`
}

/** Throws CORRUPT for anything that encodeSavedState() does not write. */
export function decodeSavedState(text: string, where: string): SavedState {
  const bad = (what: string, cause?: unknown): LonghornError =>
    new LonghornError('CORRUPT', `${where}: ${what}; remove it to give up all persistent reservations`, {}, {cause})
  let content: unknown
  try {
    content = JSON.parse(text)
  } catch (error) {
    throw bad('not JSON', error)
  }
  if (!isObject(content) || content.version !== VERSION) throw bad(`not version ${VERSION} of this file`)
  const {registrations, reservation, sanitizing} = content
  if (!Array.isArray(registrations) || !registrations.every(isRegistration)) throw bad('bad registrations')
  if (reservation !== null && !isReservation(reservation)) throw bad('bad reservation')
  if (typeof sanitizing !== 'boolean') throw bad('bad sanitizing')
  if (reservation !== null && !isHeld(registrations, reservation)) throw bad('the holder of the reservation is not registered')
  return {registrations, reservation: reservation ?? undefined, sanitizing}
}

function isRegistration(value: unknown): value is Registration {
  if (!isObject(value)) return false
  const {port, key} = value
  return isPort(port) && typeof key === 'string' && KEY.test(key) && key !== NO_KEY
}

function isReservation(value: unknown): value is Reservation {
  return isObject(value) && typeof value.type === 'number' && TYPES.has(value.type) && isPort(value.holder)
}

function isHeld(registrations: readonly Registration[], {type, holder}: Reservation): boolean {
  return TYPES.get(type)!.all ? registrations.length > 0 : registrations.some(({port}) => port === holder)
}

function isPort(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= MOST_PORT_CHARS
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
