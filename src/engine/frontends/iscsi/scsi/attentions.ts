import {CONDITION, type Condition} from './sense.js'

const RESETS: readonly Condition[] = [CONDITION.RESET_OCCURRED, CONDITION.UNIT_RESET_OCCURRED]

/**
 * What one initiator has to be told about one logical unit before its next command is carried out. Each kind is kept once,
 * so there are never more of them than kinds. A reset makes everything before it moot and is told first.
 */
export class Attentions {
  #waiting: Condition[] = []

  get pending(): boolean {
    return this.#waiting.length > 0
  }

  establish(condition: Condition): void {
    if (RESETS.includes(condition)) this.#waiting = [condition]
    else if (!this.#waiting.some(other => isSame(other, condition))) this.#waiting.push(condition)
  }

  /** The next one, which is thereby told. */
  take(): Condition | undefined {
    return this.#waiting.shift()
  }
}

function isSame(a: Condition, b: Condition): boolean {
  return a.key === b.key && a.asc === b.asc && a.ascq === b.ascq
}
