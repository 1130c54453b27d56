import {NOTHING_SAVED, type ReservationStore, type SavedState} from './saved-state.js'

/** Saves what outlives the engine: one change after the other, and nothing where nothing has changed. */
export class StateKeeper {
  #saved: SavedState
  #queue: Promise<unknown> = Promise.resolve()

  private constructor(
    readonly store: ReservationStore | undefined,
    saved: SavedState,
  ) {
    this.#saved = saved
  }

  static async open(store: ReservationStore | undefined): Promise<StateKeeper> {
    return new StateKeeper(store, (await store?.load()) ?? NOTHING_SAVED)
  }

  /** Whether anything can be kept. */
  get able(): boolean {
    return this.store !== undefined
  }

  get saved(): SavedState {
    return this.#saved
  }

  /** Resolves when the change survives a power cut. When it cannot be saved this rejects, and the old state stays. */
  save(change: Partial<SavedState>): Promise<void> {
    const done = this.#queue.then(async () => {
      const wanted = {...this.#saved, ...change}
      if (this.store === undefined || isSame(wanted, this.#saved)) return
      await this.store.save(wanted)
      this.#saved = wanted
    })
    this.#queue = done.catch(() => undefined)
    return done
  }
}

function isSame(a: SavedState, b: SavedState): boolean {
  return JSON.stringify([a.registrations, a.reservation, a.sanitizing]) === JSON.stringify([b.registrations, b.reservation, b.sanitizing])
}
