/** Begins a step when all steps before it have ended, whatever came of those. Resolves and rejects as the step does. */
export type InTurn = <T>(step: () => Promise<T>) => Promise<T>

/** For steps that happen one after the other. */
export function takeTurns(): InTurn {
  let last: Promise<unknown> = Promise.resolve()
  return step => {
    const result = last.then(step)
    last = result.catch(() => undefined)
    return result
  }
}
