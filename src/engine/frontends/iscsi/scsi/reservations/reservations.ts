import type {Nexus} from '../../scsi-task.js'
import {ReservationConflict} from '../check-condition.js'
import {ACCESS} from '../command-set.js'
import type {LogicalUnit, UnitNexus} from '../logical-unit.js'
import {excludedFrom, oldStyleRule} from './access-rules.js'
import {planReservation, type Request} from './reservation-plan.js'
import {NO_RESERVATIONS, type ReservationState} from './reservation-state.js'
import type {StateKeeper} from './state-keeper.js'

/**
 * Who may do what with one logical unit: persistent reservations, which belong to initiator ports and outlive their
 * sessions, and RESERVE of SPC-2, which belongs to a session.
 */
export class Reservations {
  #state: ReservationState
  /** The session that holds the unit with RESERVE. */
  #oldHolder: number | undefined
  #queue: Promise<unknown> = Promise.resolve()

  constructor(
    readonly unit: LogicalUnit,
    readonly keeper: StateKeeper,
  ) {
    const {registrations, reservation} = keeper.saved
    this.#state = {...NO_RESERVATIONS, registrations, reservation, kept: registrations.length > 0}
  }

  get state(): ReservationState {
    return this.#state
  }

  /** Held with RESERVE, by whoever. Persistent reservations cannot even be looked at meanwhile. */
  get heldOldStyle(): boolean {
    return this.#oldHolder !== undefined
  }

  /**
   * PERSISTENT RESERVE OUT. Resolves to the sessions whose commands are to be aborted. What has to be kept is on disk
   * before anybody can see it, so requests follow each other.
   */
  carryOut(request: Request): Promise<Nexus[]> {
    const done = this.#queue.then(async () => {
      if (this.heldOldStyle) throw new ReservationConflict()
      const {state, tell, abort} = planReservation(this.#state, request)
      await this.keeper.save(state.kept ? {registrations: state.registrations, reservation: state.reservation} : {registrations: [], reservation: undefined})
      this.#state = state
      this.refresh()
      const concerned = [...this.unit.nexuses.values()]
      for (const {port, attentions} of concerned) {
        const condition = tell.get(port)
        if (condition !== undefined) attentions.establish(condition)
      }
      return concerned.filter(({port}) => abort.includes(port)).map(({nexus}) => nexus)
    })
    this.#queue = done.catch(() => undefined)
    return done
  }

  /** RESERVE of SPC-2, from somebody whom no other session's RESERVE keeps out. */
  reserve({nexus, port}: UnitNexus): void {
    const rule = oldStyleRule(this.#state, port)
    if (rule === 'conflict') throw new ReservationConflict()
    if (rule === 'as ever') this.#setOldHolder(nexus.id)
  }

  /** RELEASE of SPC-2; from anybody but the holder it is good and does nothing. */
  release({nexus, port}: UnitNexus): void {
    const rule = oldStyleRule(this.#state, port)
    if (rule === 'conflict') throw new ReservationConflict()
    if (this.#oldHolder === nexus.id) this.#setOldHolder(undefined)
  }

  nexusLost(nexus: Nexus): void {
    if (this.#oldHolder === nexus.id) this.#setOldHolder(undefined)
  }

  /** Persistent reservations stay. */
  reset(): void {
    this.#setOldHolder(undefined)
  }

  /** Works out again what each initiator is kept from: after any change, and for a new one. */
  refresh(): void {
    for (const nexus of this.unit.nexuses.values()) {
      const heldByOther = this.#oldHolder !== undefined && this.#oldHolder !== nexus.nexus.id
      nexus.excluded = excludedFrom(this.#state, nexus.port) | (heldByOther ? ACCESS.UNRESERVED : 0)
    }
  }

  #setOldHolder(id: number | undefined): void {
    this.#oldHolder = id
    this.refresh()
  }
}
