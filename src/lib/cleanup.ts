type Undo = () => void | Promise<void>

/**
 * What has been acquired so far, undone newest first when the scope is left by throwing.
 * Node 20 has `Symbol.asyncDispose` but no `AsyncDisposableStack`; this is the part of it we need.
 */
export class Cleanup implements AsyncDisposable {
  #undo: Undo[] = []

  /** Registers something that knows how to close itself and hands it back. */
  add<T extends {close(): void | Promise<void>}>(resource: T): T {
    this.#undo.push(() => resource.close())
    return resource
  }

  /** Registers a step to run when this is disposed. */
  defer(undo: Undo): void {
    this.#undo.push(undo)
  }

  /** Hands everything registered so far to a new owner; disposing this one then does nothing. */
  move(): Cleanup {
    const owner = new Cleanup()
    owner.#undo = this.#undo
    this.#undo = []
    return owner
  }

  /** Runs every step, newest first. A step that fails does not keep the others from running; the first failure is thrown. */
  async close(): Promise<void> {
    const steps = this.#undo.reverse()
    this.#undo = []
    const failures: unknown[] = []
    for (const step of steps) {
      try {
        await step()
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
