import {Command, Flags} from '@oclif/core'
import {isKind, LonghornError} from '../lib/errors.js'
import {configured} from './config-file.js'
import {OUTPUT_FORMATS, outputFormat, type OutputFormat} from './output-format.js'

/**
 * What every command of this program has in common: `--output json`, a signal that ends it, and errors that go to one place.
 * A command parses, calls one function, prints with `this.log` and returns an object, which is its JSON output.
 */
export abstract class BaseCommand extends Command {
  static override enableJsonFlag = true

  static override baseFlags = {
    output: Flags.string({
      ...configured('output'),
      char: 'o',
      options: OUTPUT_FORMATS,
      helpGroup: 'GLOBAL',
      description: 'how to print results; --json is short for --output json',
    }),
    debug: Flags.boolean({
      env: 'LONGHORN_DEBUG',
      helpGroup: 'GLOBAL',
      description: 'show where an error comes from',
    }),
  }

  #format: OutputFormat = 'text'
  readonly #interrupt = new AbortController()

  /** Always an object: oclif prints no JSON for a result that is falsy. */
  abstract override run(): Promise<object>

  /**
   * Aborted, with an INTERRUPTED error as its reason, by the first SIGINT or SIGTERM. Hand it to everything that waits:
   * the error then travels up through `finally` and `await using`. A second signal ends the process at once.
   */
  protected get signal(): AbortSignal {
    return this.#interrupt.signal
  }

  override jsonEnabled(): boolean {
    return this.#format === 'json'
  }

  protected override async init(): Promise<void> {
    process.on('SIGINT', this.#onSignal)
    process.on('SIGTERM', this.#onSignal)
    this.#format = await outputFormat(this.argv, process.env)
    await super.init()
  }

  /** Errors are printed in one place, `finish` in main.ts; here only what an interrupt has caused gets its name back, unless it says itself what that means. */
  protected override async catch(error: Error): Promise<never> {
    throw this.signal.aborted && !isKind(error, 'INTERRUPTED') && isCausedBy(error, this.signal.reason) ? this.signal.reason : error
  }

  protected override async finally(error: Error | undefined): Promise<void> {
    process.off('SIGINT', this.#onSignal)
    process.off('SIGTERM', this.#onSignal)
    await super.finally(error)
  }

  protected override logJson(json: unknown): void {
    process.stdout.write(`${JSON.stringify(json, bigintAsText, 2)}\n`)
  }

  readonly #onSignal = (name: NodeJS.Signals): void => {
    const interrupted = new LonghornError('INTERRUPTED', `interrupted by ${name}`)
    if (this.signal.aborted) process.exit(interrupted.exitCode)
    this.#interrupt.abort(interrupted)
  }
}

/** Node's own calls reject with an AbortError that carries the signal's reason as its cause. */
function isCausedBy(error: unknown, reason: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at === reason) return true
  }
  return false
}

/** 64-bit numbers are text in JSON, as in upstream's: readers would silently round them. */
function bigintAsText(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value
}
