import type {Log} from './log.js'

const INTERVAL_MS = 10_000

interface Repeated {
  readonly timer: NodeJS.Timeout
  /** Writes the line that was the last to be asked for. */
  last: (more: object) => void
  /** How often that was since a line was written. */
  times: number
}

/**
 * Lines about something that may happen with every request, such as a bad disk: the first of a kind is written at once, the later ones are
 * counted. Every ten seconds the last of them is written with `times`, their number; a kind that was quiet for so long begins again.
 */
export class RepeatLog {
  readonly #log: Log
  readonly #intervalMs: number
  readonly #kinds = new Map<string, Repeated>()
  #closed = false

  constructor(log: Log, intervalMs = INTERVAL_MS) {
    this.#log = log
    this.#intervalMs = intervalMs
  }

  /** Lines of the same `kind` and message are one thing that repeats itself. */
  warn(kind: string, fields: object, message: string): void {
    this.#say(`${message}\n${kind}`, more => this.#log.warn({...fields, ...more}, message))
  }

  /** The same for errors. */
  error(kind: string, fields: object, message: string): void {
    this.#say(`${message}\n${kind}`, more => this.#log.error({...fields, ...more}, message))
  }

  /** Writes what was counted. What comes later is written as it comes. Safe twice. */
  close(): void {
    this.#closed = true
    for (const {timer, last, times} of this.#kinds.values()) {
      clearInterval(timer)
      if (times > 0) last({times})
    }
    this.#kinds.clear()
  }

  #say(key: string, write: (more: object) => void): void {
    const known = this.#kinds.get(key)
    if (known !== undefined) {
      known.last = write
      known.times++
      return
    }
    write({})
    if (this.#closed) return
    const repeated: Repeated = {timer: setInterval(() => this.#tell(key, repeated), this.#intervalMs).unref(), last: write, times: 0}
    this.#kinds.set(key, repeated)
  }

  #tell(key: string, repeated: Repeated): void {
    const {timer, last, times} = repeated
    if (times === 0) {
      clearInterval(timer)
      this.#kinds.delete(key)
      return
    }
    repeated.times = 0
    last({times})
  }
}
