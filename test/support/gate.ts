/** Where others wait until a test lets them on. */
export class Gate {
  /** How many have come. */
  waiting = 0
  #opened: () => void = () => undefined
  readonly #open = new Promise<void>(resolve => (this.#opened = resolve))

  async pass(): Promise<void> {
    this.waiting++
    await this.#open
  }

  /** Lets everybody on, from now on. */
  open(): void {
    this.#opened()
  }
}
