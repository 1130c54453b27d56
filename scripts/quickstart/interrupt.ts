import {LonghornError} from '../../src/lib/errors.js'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
/** npm passes a signal on that the terminal has sent to the whole group already: the same one arrives twice. */
const ECHO_MS = 1000

/**
 * Aborts `signal` at the first SIGINT, SIGTERM or SIGHUP, and when nobody reads the output any more. Those that follow
 * change nothing: what comes then is the cleaning up, which must not be skipped and has limits of its own.
 */
export class Interrupt {
  readonly #abort = new AbortController()
  readonly #onSignal = (name: NodeJS.Signals): void => this.#interrupt(`interrupted by ${name}`)
  readonly #onOutputLost = (): void => this.#interrupt('the output was closed')
  #at = 0

  constructor(readonly onRepeated: () => void) {
    for (const name of SIGNALS) process.on(name, this.#onSignal)
    process.stdout.on('error', this.#onOutputLost)
    process.stderr.on('error', this.#onOutputLost)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  close(): void {
    for (const name of SIGNALS) process.off(name, this.#onSignal)
  }

  #interrupt(reason: string): void {
    const now = performance.now()
    if (!this.signal.aborted) {
      this.#at = now
      this.#abort.abort(new LonghornError('INTERRUPTED', reason))
    } else if (now - this.#at > ECHO_MS) {
      this.#at = now
      this.onRepeated()
    }
  }
}
