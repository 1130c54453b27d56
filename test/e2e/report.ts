// What was checked, a line each, as it happens.

export class Report {
  #passed = 0
  readonly #failed: string[] = []
  #section = ''

  section(title: string): void {
    this.#section = title
    console.log(`\n${title}`)
  }

  say(text: string): void {
    console.log(text)
  }

  /**
   * Runs a check and prints how it went; what it resolves with is printed as well. A failure is printed and kept, and the next
   * check goes on. False after a failure.
   */
  async check(what: string, run: () => Promise<string | void>): Promise<boolean> {
    const started = performance.now()
    const line = (state: string, more: string): void => {
      const seconds = `${((performance.now() - started) / 1000).toFixed(1)} s`
      console.log(`  ${state}  ${what} (${more === '' ? seconds : `${more}; ${seconds}`})`)
    }
    try {
      line('ok    ', (await run()) ?? '')
      this.#passed++
      return true
    } catch (error) {
      this.#failed.push(`${this.#section}: ${what}`)
      line('FAILED', 'see below')
      console.log(indent(error instanceof Error ? error.message : String(error)))
      return false
    }
  }

  /** Prints the sum, and gives the exit code. */
  end(): number {
    for (const failure of this.#failed) console.log(`\nfailed: ${failure}`)
    console.log(`\n${this.#passed} passed, ${this.#failed.length} failed`)
    return this.#failed.length === 0 && this.#passed > 0 ? 0 : 1
  }
}

function indent(text: string): string {
  return text.trim().replace(/^/gm, '          ')
}
